// Pan and zoom: the stage is moved and scaled as a whole.

const view = document.querySelector(".view");
const stage = view.querySelector(".stage");
const whole = { width: stage.offsetWidth, height: stage.offsetHeight };
const FAR = 0.34; // below this scale boxes show their names, or what they mean, alone
const NEAR = 0.72; // below this one what they mean, what they do and one context; above it all
const camera = { x: 0, y: 0, scale: 1 };
let resting = null;

function place() {
  stage.style.transform = `translate(${camera.x}px, ${camera.y}px) scale(${camera.scale})`;
  stage.classList.toggle("far", camera.scale < FAR);
  stage.classList.toggle("mid", camera.scale >= FAR && camera.scale < NEAR);
}

// While it moves the browser moves pixels; once it rests it draws them again, sharp.
function move() {
  stage.classList.add("moving");
  place();
  clearTimeout(resting);
  resting = setTimeout(() => {
    stage.classList.remove("moving");
    const middle = [view.clientWidth / 2 - camera.x, view.clientHeight / 2 - camera.y];
    state.camera = [...middle.map((at) => Math.round(at / camera.scale)), Number(camera.scale.toFixed(4))];
    keep();
  }, 160);
}

function zoom(factor, x = view.clientWidth / 2, y = view.clientHeight / 2) {
  const scale = Math.min(Math.max(camera.scale * factor, 0.03), 4);
  const ratio = scale / camera.scale;
  camera.x = x - (x - camera.x) * ratio;
  camera.y = y - (y - camera.y) * ratio;
  camera.scale = scale;
  move();
}

// All of the drawing, or a box and what is around it.
function fit() {
  const scale = Math.min(view.clientWidth / whole.width, view.clientHeight / whole.height, 1);
  camera.scale = scale;
  camera.x = (view.clientWidth - whole.width * scale) / 2;
  camera.y = (view.clientHeight - whole.height * scale) / 2;
  place();
  state.camera = null;
  keep();
}

function centre([x, y, width, height]) {
  camera.scale = Math.max(camera.scale, 0.7);
  camera.x = view.clientWidth / 2 - (x + width / 2) * camera.scale;
  camera.y = view.clientHeight / 2 - (y + height / 2) * camera.scale;
  move();
}

// Moves only where the box is not in sight.
function reveal(box) {
  const [left, top] = [camera.x + box[0] * camera.scale, camera.y + box[1] * camera.scale];
  const right = left + box[2] * camera.scale;
  const bottom = top + box[3] * camera.scale;
  const inside = left >= 0 && top >= 0 && right <= view.clientWidth && bottom <= view.clientHeight;
  if (!inside || camera.scale < FAR) centre(box);
}

// As the state says: where the reader was, or all of the drawing.
function restoreCamera() {
  if (!state.camera) {
    fit();
    return;
  }
  const [x, y, scale] = state.camera;
  camera.scale = Math.min(Math.max(scale, 0.03), 4);
  camera.x = view.clientWidth / 2 - x * camera.scale;
  camera.y = view.clientHeight / 2 - y * camera.scale;
  place();
}

function pan(dx, dy) {
  camera.x += dx;
  camera.y += dy;
  move();
}

function startCamera() {
  let held = null;
  view.addEventListener("wheel", (event) => {
    event.preventDefault();
    const place = view.getBoundingClientRect();
    const step = event.deltaMode ? 0.05 : 0.0016;
    zoom(Math.exp(-event.deltaY * step), event.clientX - place.left, event.clientY - place.top);
  }, { passive: false });
  view.addEventListener("pointerdown", (event) => {
    if (event.button === 0) held = { x: event.clientX, y: event.clientY, moved: false };
  });
  window.addEventListener("pointermove", (event) => {
    if (!held || held.done) return;
    const [dx, dy] = [event.clientX - held.x, event.clientY - held.y];
    if (!held.moved && Math.hypot(dx, dy) < 4) return;
    held = { x: event.clientX, y: event.clientY, moved: true };
    view.classList.add("held");
    pan(dx, dy);
  });
  window.addEventListener("pointerup", () => {
    view.classList.remove("held");
    if (!held || !held.moved) held = null;
    else {
      held.done = true;
      setTimeout(() => { held = null; }); // the click that follows is a drag's
    }
  });
  view.addEventListener("click", (event) => {
    if (held && held.moved) event.stopPropagation();
  }, true);
  view.addEventListener("scroll", () => view.scrollTo(0, 0)); // a focused box moves the camera alone
}
