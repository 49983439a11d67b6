// Two drawings of one layout: one camera moves both, and what is lit in one is lit in the other.

const root = document.documentElement;
root.classList.add("js");
const data = JSON.parse(document.getElementById("pair-data").textContent);
const views = [...document.querySelectorAll(".view")];
const stages = views.map((view) => view.querySelector(".stage"));
const said = document.getElementById("said");
const MID = 0.66; // below this scale boxes show their names alone, in larger type
const FAR = 0.2; // and below this one, in type as large as fits

// -- what is lit: hovered over, else chosen by a click or the keyboard

const boxes = stages.map((stage) => [...stage.querySelectorAll("[data-n]")]);
const arrows = data.ends.map((_, e) => [...document.querySelectorAll(`[data-e="${e}"]`)]);
const touching = boxes.length ? boxes[0].map(() => []) : [];
data.ends.forEach(([source, target], e) => {
  touching[source].push(e);
  touching[target].push(e);
});
let chosen = null; // { n } or { e }
let lit = [];

function mark(element, name) {
  element.classList.add(name);
  lit.push([element, name]);
}

function light(what) {
  for (const [element, name] of lit) element.classList.remove(name);
  lit = [];
  for (const stage of stages) stage.classList.toggle("dim", what !== null);
  said.textContent = what === null ? "" : "n" in what ? data.boxes[what.n] : data.arrows[what.e];
  if (what === null) return;
  const edges = "n" in what ? touching[what.n] : [what.e];
  for (const e of edges) {
    for (const element of arrows[e]) mark(element, "on");
    for (const n of data.ends[e]) for (const side of boxes) mark(side[n], "on");
  }
  if ("n" in what) for (const side of boxes) { mark(side[what.n], "on"); mark(side[what.n], "self"); }
}

function at(target) {
  const box = target.closest("[data-n]");
  if (box) return { n: Number(box.dataset.n) };
  const arrow = target.closest("[data-e]");
  return arrow ? { e: Number(arrow.dataset.e) } : null;
}

function choose(what) {
  chosen = what;
  light(what);
}

function hovered(event) {
  light(at(event.target) || chosen);
}

// -- one camera for both

const camera = { x: 0, y: 0, scale: 1, moved: false };

function place() {
  for (const stage of stages) {
    stage.style.transform = `translate(${camera.x}px, ${camera.y}px) scale(${camera.scale})`;
    stage.classList.toggle("mid", camera.scale < MID && camera.scale >= FAR);
    stage.classList.toggle("far", camera.scale < FAR);
  }
}

function zoom(factor, x = views[0].clientWidth / 2, y = views[0].clientHeight / 2) {
  const scale = Math.min(Math.max(camera.scale * factor, 0.03), 4);
  camera.x = x - (x - camera.x) * (scale / camera.scale);
  camera.y = y - (y - camera.y) * (scale / camera.scale);
  camera.scale = scale;
  camera.moved = true;
  place();
}

function fit() {
  const [view, stage] = [views[0], stages[0]];
  const room = [view.clientWidth / stage.offsetWidth, view.clientHeight / stage.offsetHeight];
  camera.scale = Math.min(...room, 1);
  camera.x = (view.clientWidth - stage.offsetWidth * camera.scale) / 2;
  camera.y = (view.clientHeight - stage.offsetHeight * camera.scale) / 2;
  camera.moved = false;
  place();
}

// Moves only where the box is not in sight.
function reveal(box) {
  const [left, top] = [camera.x + box.offsetLeft * camera.scale, camera.y + box.offsetTop * camera.scale];
  const [width, height] = [box.offsetWidth * camera.scale, box.offsetHeight * camera.scale];
  const view = views[0];
  if (left >= 0 && top >= 0 && left + width <= view.clientWidth && top + height <= view.clientHeight) return;
  camera.x += view.clientWidth / 2 - left - width / 2;
  camera.y += view.clientHeight / 2 - top - height / 2;
  camera.moved = true;
  place();
}

let held = null;
for (const view of views) {
  view.addEventListener("wheel", (event) => {
    event.preventDefault();
    const box = view.getBoundingClientRect();
    const step = event.deltaMode ? 0.05 : 0.0016;
    zoom(Math.exp(-event.deltaY * step), event.clientX - box.left, event.clientY - box.top);
  }, { passive: false });
  view.addEventListener("pointerdown", (event) => {
    if (event.button === 0) held = { x: event.clientX, y: event.clientY, moved: false };
  });
  view.addEventListener("mouseover", hovered);
  view.addEventListener("mouseleave", () => light(chosen));
  view.addEventListener("click", (event) => {
    if (held && held.moved) return; // the click that ends a drag
    choose(at(event.target));
  });
  view.addEventListener("scroll", () => view.scrollTo(0, 0)); // a focused box moves the camera alone
}
window.addEventListener("pointermove", (event) => {
  if (!held || held.done) return;
  const [dx, dy] = [event.clientX - held.x, event.clientY - held.y];
  if (!held.moved && Math.hypot(dx, dy) < 4) return;
  held = { x: event.clientX, y: event.clientY, moved: true };
  camera.x += dx;
  camera.y += dy;
  camera.moved = true;
  for (const view of views) view.classList.add("held");
  place();
});
window.addEventListener("pointerup", () => {
  for (const view of views) view.classList.remove("held");
  if (held) held.done = true; // kept for the click that follows, which is a drag's
  setTimeout(() => { held = null; });
});
window.addEventListener("resize", () => { if (views.length && !camera.moved) fit(); });

// -- the keyboard: arrow keys walk over the boxes, by where they stand

function middle(box) {
  return [box.offsetLeft + box.offsetWidth / 2, box.offsetTop + box.offsetHeight / 2];
}

function nearest(from, key) {
  const along = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[key];
  const [x, y] = middle(from);
  let best = null;
  for (const box of from.parentElement.querySelectorAll(".node:not(.ghost)")) {
    const [dx, dy] = [middle(box)[0] - x, middle(box)[1] - y];
    const ahead = dx * along[0] + dy * along[1];
    const aside = Math.abs(dx * along[1]) + Math.abs(dy * along[0]);
    if (ahead > 4 && (best === null || ahead + 2 * aside < best.far)) best = { box, far: ahead + 2 * aside };
  }
  return best && best.box;
}

document.addEventListener("keydown", (event) => {
  if (event.target.closest("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
  const box = event.target.closest(".node");
  if (event.key === "Escape") choose(null);
  else if (event.key === "+" || event.key === "=") zoom(1.25);
  else if (event.key === "-") zoom(0.8);
  else if (event.key === "0") fit();
  else if (box && event.key.startsWith("Arrow")) {
    event.preventDefault();
    const next = nearest(box, event.key);
    if (next) next.focus({ preventScroll: true });
  } else if (box && (event.key === "Enter" || event.key === " ")) {
    event.preventDefault();
    choose(at(box));
  } else if (event.target.matches(".view") && event.key.startsWith("Arrow")) {
    event.preventDefault();
    const first = event.target.querySelector(".node:not(.ghost)");
    if (first) first.focus({ preventScroll: true });
  }
});
document.addEventListener("focusin", (event) => {
  const box = event.target.closest(".node");
  if (!box) return;
  if (box.matches(":focus-visible")) reveal(box);
  light(at(box));
});

// -- the rest of the page

for (const row of document.querySelectorAll("tr[data-e]")) {
  row.tabIndex = 0;
  const what = { e: Number(row.dataset.e) };
  row.addEventListener("mouseenter", () => light(what));
  row.addEventListener("mouseleave", () => light(chosen));
  row.addEventListener("focus", () => light(what));
  row.addEventListener("click", () => {
    choose(what);
    if (!views.length) return;
    views[0].parentElement.scrollIntoView({ block: "nearest" });
    reveal(boxes[0][data.ends[what.e][1]]);
  });
  row.addEventListener("keydown", (event) => { if (event.key === "Enter") row.click(); });
}
for (const button of document.querySelectorAll("[data-zoom]")) {
  button.addEventListener("click", () => Number(button.dataset.zoom) ? zoom(Number(button.dataset.zoom)) : fit());
}
for (const button of document.querySelectorAll("[data-show]")) {
  button.addEventListener("click", () => {
    for (const other of document.querySelectorAll("[data-show]")) {
      other.setAttribute("aria-pressed", String(other === button));
    }
    document.body.dataset.shows = button.dataset.show;
  });
}
if (views.length) fit();
root.classList.add("ready");
