// Run once when the timeline is put on the page; `element` is its box, whose content changes with every answer.
// A click on a segment seeks the player, and a line over the segments shows where it is.
const player = () => document.querySelector('#va-video video');
element.addEventListener('click', (event) => {
  const segment = event.target.closest('[data-seek]');
  const video = player();
  if (!segment || !video) return;
  video.currentTime = Number(segment.dataset.seek);
});
document.addEventListener('timeupdate', (event) => {
  const timeline = element.querySelector('.va-timeline');
  if (!timeline || event.target !== player()) return;
  const head = timeline.querySelector('.va-playhead');
  const share = event.target.currentTime / Number(timeline.dataset.end);
  head.hidden = false;
  head.style.left = Math.min(share, 1) * 100 + '%';
}, true);

// Gradio reports a file that the browser cannot play as an error, although classifying it works.
const playable = 'Video not playable';
new MutationObserver(() => {
  for (const text of document.querySelectorAll('.toast-message-text')) {
    if (text.textContent.includes(playable)) {
      text.textContent = 'This browser cannot show the file. It can be classified all the same.';
      const title = text.closest('.toast-body')?.querySelector('.toast-title');
      if (title) title.textContent = 'Not shown';
    }
  }
}).observe(document.body, {childList: true, subtree: true});
