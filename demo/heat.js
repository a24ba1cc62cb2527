// Run once when the box is put on the page; `element` is the box, whose content changes with every explanation.
// The map that is nearest in time lies over the player's picture; a click on a part seeks to it.
const player = () => document.querySelector('#va-video video');
const FAR_SEC = 0.5;  // so far from the first or last map there is no heat: the model did not look there
const canvas = document.createElement('canvas');
canvas.className = 'va-heat-canvas';
canvas.setAttribute('aria-hidden', 'true');
let maps = [];

const colour = (heat) => [255, Math.round(220 * heat), 40, Math.round(200 * heat)];

const picture = (heat) => {
  const small = document.createElement('canvas');
  small.width = heat[0].length;
  small.height = heat.length;
  const pixels = new ImageData(small.width, small.height);
  heat.flat().forEach((value, at) => pixels.data.set(colour(value), 4 * at));
  small.getContext('2d').putImageData(pixels, 0, 0);
  return small;
};

const nearest = (time) => {
  if (!maps.length || time < maps[0].time - FAR_SEC || time > maps.at(-1).time + FAR_SEC) return [];
  const distance = Math.min(...maps.map((each) => Math.abs(each.time - time)));
  return maps.filter((each) => Math.abs(each.time - time) === distance);  // three crops have one time
};

const draw = () => {
  const video = player();
  const shown = element.querySelector('.va-heat-on')?.checked && video ? nearest(video.currentTime) : [];
  if (!video || !shown.length || !video.videoWidth) {
    canvas.remove();
    return;
  }
  const parent = video.parentElement;
  if (getComputedStyle(parent).position === 'static') parent.style.position = 'relative';
  if (canvas.parentElement !== parent) parent.append(canvas);
  const scale = Math.min(video.clientWidth / video.videoWidth, video.clientHeight / video.videoHeight);
  const [width, height] = [video.videoWidth * scale, video.videoHeight * scale];
  canvas.width = Math.round(width);
  canvas.height = Math.round(height);
  canvas.style.left = video.offsetLeft + (video.clientWidth - width) / 2 + 'px';
  canvas.style.top = video.offsetTop + (video.clientHeight - height) / 2 + 'px';
  const context = canvas.getContext('2d');
  for (const {heat, crop: [left, top, across, down]} of shown) {
    context.drawImage(picture(heat), left * width, top * height, across * width, down * height);
  }
};

const read = () => {
  const box = element.querySelector('.va-heat');
  maps = box ? JSON.parse(box.dataset.maps).sort((one, other) => one.time - other.time) : [];
  draw();
};

element.addEventListener('click', (event) => {
  const part = event.target.closest('[data-seek]');
  const video = player();
  if (part && video) video.currentTime = Number(part.dataset.seek);
});
element.addEventListener('change', draw);
for (const name of ['timeupdate', 'seeked', 'loadeddata']) {
  document.addEventListener(name, (event) => event.target === player() && draw(), true);
}
addEventListener('resize', draw);
new MutationObserver(read).observe(element, {childList: true, subtree: true});
