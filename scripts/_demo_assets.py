"""The demo page's style and its two pieces of script. Nothing is loaded from outside: system fonts, no images."""

from __future__ import annotations

FONTS = ("system-ui", "sans-serif")
MONO_FONTS = ("ui-monospace", "monospace")

VIDEO_ID = "va-video"

# Colours are the theme's own variables, so that light and dark both work. Wide: the answer stands beside the video and
# the form; narrow: below the video, above the form, so that it is seen when it comes.
CSS = """
.gradio-container {
  max-width: 1180px !important; margin: 0 auto !important;
  --va-quiet: color-mix(in srgb, var(--body-text-color) 68%, transparent);
}
#va-title, #va-title .html-container { padding: 0; }
#va-status:not(:has(.va-error)) { display: none; }
#va-title h1 { font-size: 1.5rem; margin: 0 0 .15rem; }
#va-title p { margin: 0; color: var(--va-quiet); }
#va-grid {
  display: grid; grid-template: "watch answer" auto "ask answer" 1fr / minmax(0, 3fr) minmax(0, 2fr); gap: 1rem 1.5rem;
}
#va-watch { grid-area: watch; }
#va-ask { grid-area: ask; }
#va-answer { grid-area: answer; }
#va-grid .html-container { padding: 0; }
#va-video video { max-height: 46vh; }
/* Cutting encodes the video again; the form's seconds look at a part of it as it is. */
#va-video button[aria-label*="trim" i], #va-video button[title*="trim" i] { display: none; }
#va-classify { background: #2f5fd8; color: #fff; }
#va-classify:hover { background: #254fb8; }
#va-refresh { width: fit-content; flex: none; align-self: flex-start; }
.va-hint { color: var(--va-quiet); }
.va-error {
  border: 1px solid #c23b33; background: color-mix(in srgb, #c23b33 12%, var(--body-background-fill));
  color: var(--body-text-color); border-radius: 8px; padding: .75rem 1rem; overflow-wrap: anywhere;
}
.va-panel { border: 1px solid var(--border-color-primary); border-radius: 8px; padding: 1rem; }
.va-panel h2 { font-size: 1rem; font-weight: 600; margin: 0 0 .75rem; }
.va-labels { list-style: none; margin: 0; padding: 0; display: grid; gap: .6rem; }
.va-label { display: grid; grid-template-columns: 1fr auto; column-gap: .75rem; margin: 0; }
.va-label:first-child .va-name { font-weight: 600; }
.va-name { overflow-wrap: anywhere; }
.va-score { font-variant-numeric: tabular-nums; color: var(--va-quiet); }
.va-track {
  grid-column: 1 / -1; height: 8px; margin-top: .2rem; border-radius: 4px; overflow: hidden;
  background: var(--border-color-primary);
}
.va-fill { display: block; height: 100%; min-width: 2px; border-radius: 4px; background: var(--color-accent); }
.va-segments {
  position: relative; height: 44px; border-radius: 8px; overflow: hidden; background: var(--border-color-primary);
}
.va-timeline .va-segment {
  position: absolute; top: 0; bottom: 0; border: 0; border-right: 2px solid var(--body-background-fill); margin: 0;
  border-radius: 0; padding: 0 .4rem; min-width: 6px; color: #fff; font-size: .8rem; font-weight: 500;
  line-height: 44px; text-align: left; cursor: pointer; overflow: hidden; white-space: nowrap; text-overflow: ellipsis;
}
.va-timeline .va-segment * { color: #fff; }
.va-segment:hover { filter: brightness(1.15); }
.va-segment:focus-visible { outline: 3px solid var(--body-text-color); outline-offset: -3px; }
.va-playhead {
  position: absolute; top: 0; bottom: 0; width: 3px; margin-left: -1px; pointer-events: none;
  background: var(--body-text-color); box-shadow: 0 0 0 1px var(--body-background-fill);
}
.va-ticks { position: relative; height: 1.2rem; margin-top: .25rem; font-size: .75rem; }
.va-ticks span {
  position: absolute; transform: translateX(-50%); color: var(--va-quiet); font-variant-numeric: tabular-nums;
}
.va-ticks span:first-child { transform: none; }
.va-ticks span:last-child { transform: translateX(-100%); }
.va-legend { list-style: none; display: flex; flex-wrap: wrap; gap: .25rem 1rem; margin: .4rem 0 0; padding: 0; }
.va-legend li { display: flex; align-items: center; gap: .4rem; font-size: .85rem; margin: 0; }
.va-dot { width: .7rem; height: .7rem; border-radius: 50%; flex: none; }
.va-facts { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1rem; margin: 0; font-size: .9rem; }
.va-facts dt { color: var(--va-quiet); }
.va-facts dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 800px) {
  #va-grid { grid-template: "watch" auto "answer" auto "ask" auto / minmax(0, 1fr); }
}
@media (max-width: 480px) {
  .va-facts { grid-template-columns: 1fr; gap: 0; }
  .va-facts dd { margin-bottom: .5rem; }
  #va-model, #va-version { flex: 1 1 100%; }
  .va-ticks span:nth-child(even) { display: none; }
}
"""

# Run once when the timeline is put on the page; `element` is its box, whose content changes with every answer.
SEEK_JS = f"""
const player = () => document.querySelector('#{VIDEO_ID} video');
element.addEventListener('click', (event) => {{
  const segment = event.target.closest('[data-seek]');
  const video = player();
  if (!segment || !video) return;
  video.currentTime = Number(segment.dataset.seek);
}});
document.addEventListener('timeupdate', (event) => {{
  const timeline = element.querySelector('.va-timeline');
  if (!timeline || event.target !== player()) return;
  const head = timeline.querySelector('.va-playhead');
  const share = event.target.currentTime / Number(timeline.dataset.end);
  head.hidden = false;
  head.style.left = Math.min(share, 1) * 100 + '%';
}}, true);
"""
