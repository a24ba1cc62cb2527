// Run once when the timeline is put on the page; `element` is its box, whose content changes with every answer.
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
