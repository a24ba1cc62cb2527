// Run once when the camera's tab is put on the page; `element` is its box. Every stride a recorder of its own begins, so
// that each window is a whole video file; what the server cannot keep up with is skipped and counted.
const find = (name) => element.querySelector('.va-live-' + name);
const MOST_UNDER_WAY = 2, LOG_LINES = 12, FIRST_WINDOW_SEC = 2;
let stream = null, timer = null, underWay = 0, labelled = 0, skipped = 0, newest = 0, windowSec = FIRST_WINDOW_SEC;

const clock = (date) => date.toTimeString().slice(0, 8) + '.' + Math.floor(date.getMilliseconds() / 100);
const count = () => { find('count').textContent = `${labelled} windows with labels, ${skipped} skipped`; };
const complain = (message) => {
  const box = document.createElement('div');
  box.className = 'va-error';
  box.setAttribute('role', 'alert');
  box.textContent = message;
  find('labels').replaceChildren(box);
};

async function listModels() {
  const answer = await fetch('camera/models');
  const content = await answer.json();
  if (!answer.ok) { complain(content.message); return; }
  const chosen = find('model').value;
  find('model').replaceChildren(...content.models.map((name) => new Option(name, name, false, name === chosen)));
}

async function ask(video, from, to) {
  const answer = await fetch('camera/window?model=' + encodeURIComponent(find('model').value), {
    method: 'POST', body: video, headers: {'Content-Type': 'application/octet-stream'},
  });
  const content = await answer.json();
  if (!stream) return;
  if (!answer.ok) {
    skipped += 1;
    if (answer.status !== 503) complain(content.message);
    return;
  }
  labelled += 1;
  windowSec = content.window_sec;
  const line = document.createElement('li');
  const score = content.score === null ? '' : ' ' + content.score.toFixed(2);
  line.textContent = `${clock(from)} - ${clock(to)}  ${content.label}${score}`;
  find('log').prepend(line);
  while (find('log').children.length > LOG_LINES) find('log').lastChild.remove();
  if (from < newest) return;  // answers may overtake each other
  newest = from;
  find('labels').innerHTML = content.html;
}

function record() {
  const recorder = new MediaRecorder(stream), from = new Date(), parts = [];
  recorder.ondataavailable = (event) => parts.push(event.data);
  recorder.onstop = async () => {
    if (!stream) return;
    if (underWay >= MOST_UNDER_WAY) { skipped += 1; count(); return; }
    underWay += 1;
    try {
      await ask(new Blob(parts), from, new Date());
    } catch (error) {
      skipped += 1;
      complain('The page\'s server does not answer.');
    } finally {
      underWay -= 1;
      count();
    }
  };
  recorder.start();
  // A little more than the clip, since a recorder takes some time for its first picture.
  setTimeout(() => recorder.state !== 'inactive' && recorder.stop(), windowSec * 1000 + 200);
}

async function start() {
  try {
    await listModels();
    stream = await navigator.mediaDevices.getUserMedia({video: true, audio: false});
  } catch (error) {
    complain('The camera cannot be used: ' + error.message);
    return;
  }
  labelled = skipped = newest = 0;
  windowSec = FIRST_WINDOW_SEC;
  find('video').srcObject = stream;
  find('start').textContent = 'Stop the camera';
  find('log').replaceChildren();
  count();
  const strideSec = Math.max(Number(find('stride').value) || 1, 0.2);
  record();
  timer = setInterval(record, strideSec * 1000);
}

function stop() {
  clearInterval(timer);
  const ended = stream;
  stream = null;
  for (const track of ended.getTracks()) track.stop();
  find('video').srcObject = null;
  find('start').textContent = 'Start the camera';
}

find('start').addEventListener('click', () => (stream ? stop() : start()));
listModels().catch(() => complain('The page\'s server does not answer.'));
