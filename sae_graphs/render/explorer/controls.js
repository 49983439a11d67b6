// The toolbar, the keyboard, the pointer; and the start.

const by = (id) => document.getElementById(id);
const searchField = by("search");

function select(on) {
  state.on = on;
  keep();
  const what = selected();
  light(what);
  drawPanel();
  if (what && what.node !== undefined) {
    const fold = foldOf(what.node);
    reveal(boxOf(what.node));
    if (!fold) focusOn(what.node);
  }
}

// One box at a time can be reached by the tab key; arrow keys move from box to box.
function focusOn(number) {
  boxes.forEach((box, other) => { box.tabIndex = other === number ? 0 : -1; });
  if (document.activeElement && document.activeElement.closest(".stage")) {
    boxes[number].focus({ preventScroll: true });
  }
}

// After pins, labels or groups have changed.
function changed() {
  keep();
  drawAnnotations();
  drawPanel();
}

// -- the toolbar -----------------------------------------------------------------------------------

function showControls() {
  by("least").max = String(sizes.length);
  const place = sizes.findIndex((size) => size >= state.least);
  by("least").value = String(state.least > 0 ? (place < 0 ? sizes.length : place) : 0);
  by("least-said").textContent = state.least > 0 ? rounded(state.least) : "any";
  by("top").max = String(largestRank);
  by("top").value = String(state.top === null ? largestRank : Math.min(state.top, largestRank));
  by("top-said").textContent = state.top === null || state.top >= largestRank ? "all" : String(state.top);
  for (const button of document.querySelectorAll("[data-sign]")) {
    button.setAttribute("aria-pressed", String(button.dataset.sign === state.sign));
  }
  by("whole").checked = state.whole;
  by("component").value = String(state.component);
  if (searchField.value !== state.query) searchField.value = state.query;
}

const rounded = (value) => String(Number(value.toPrecision(3)));

function filtered() {
  showControls();
  keep();
  drawFilters();
  drawPanel();
}

function startControls() {
  by("least").addEventListener("input", (event) => {
    const place = Number(event.target.value);
    state.least = place === 0 ? 0 : place < sizes.length ? sizes[place] : Infinity;
    if (state.least === Infinity) state.least = sizes[sizes.length - 1] || 0;
    filtered();
  });
  by("top").addEventListener("input", (event) => {
    const k = Number(event.target.value);
    state.top = k >= largestRank ? null : k;
    filtered();
  });
  for (const button of document.querySelectorAll("[data-sign]")) {
    button.addEventListener("click", () => { state.sign = button.dataset.sign; filtered(); });
  }
  by("whole").addEventListener("change", (event) => { state.whole = event.target.checked; filtered(); });
  by("component").addEventListener("change", (event) => { state.component = Number(event.target.value); filtered(); });
  searchField.addEventListener("input", () => { state.query = searchField.value; keep(); drawSearch(); });
  searchField.addEventListener("keydown", (event) => {
    if (event.key === "Enter") { event.preventDefault(); nextFound(event.shiftKey ? -1 : 1); }
  });
  for (const button of document.querySelectorAll("[data-zoom]")) {
    button.addEventListener("click", () => (Number(button.dataset.zoom) ? zoom(Number(button.dataset.zoom)) : fit()));
  }
  by("save").addEventListener("click", download);
  by("load").addEventListener("click", () => by("file").click());
  by("file").addEventListener("change", (event) => upload(event.target));
  by("keys-button").addEventListener("click", () => by("keys").showModal());
}

function nextFound(step) {
  const found = drawSearch();
  if (!found.length) return;
  const what = selected();
  const now = found.indexOf(what ? what.node : -1);
  select(nodes[found[(now + step + found.length) % found.length]].id);
}

function say(text) {
  by("said").textContent = text;
}

// -- files -----------------------------------------------------------------------------------------

function download() {
  const address = URL.createObjectURL(new Blob([toFile(state)], { type: "application/json" }));
  const anchor = make("a", { href: address, download: "annotations.json" });
  document.body.append(anchor);
  anchor.click();
  anchor.remove();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
  say("saved annotations.json; draw it with sae-graphs graph --annotations");
}

async function upload(input) {
  const [file] = input.files;
  if (!file) return;
  let found = null;
  try {
    found = annotationsFrom(JSON.parse(await file.text()));
  } catch {
    found = null;
  }
  input.value = "";
  if (!found) {
    say(`${file.name} holds no annotations; expected a file that this page saved`);
    return;
  }
  const { left, ...written } = found;
  Object.assign(state, written);
  changed();
  say(left ? `loaded; ${left} annotated features are not in this graph` : "loaded");
}

// -- pointer and keyboard --------------------------------------------------------------------------

const underPointer = (event) => {
  const box = event.target.closest(".node");
  if (box && box.dataset.n !== undefined) return { node: Number(box.dataset.n) };
  if (box) return { nodes: folds.find((fold) => fold.element === box).members, group: box.dataset.group };
  const arrow = event.target.closest("g.edge");
  return arrow ? { edge: Number(arrow.dataset.e) } : null;
};

function startPointer() {
  let over = null;
  const key = (what) => JSON.stringify(what);
  stage.addEventListener("pointerover", (event) => {
    if (view.classList.contains("held")) return;
    const what = underPointer(event);
    if (key(what) === key(over)) return;
    over = what;
    light(what || selected());
  });
  view.addEventListener("pointerleave", () => { over = null; light(selected()); });
  view.addEventListener("click", (event) => {
    const what = underPointer(event);
    if (!what) select(null);
    else if (what.group !== undefined) { state.on = null; keep(); drawPanel(what.group); light(what); }
    else if (what.node !== undefined) select(nodes[what.node].id);
    else select(`${nodes[edges[what.edge].s].id}>${nodes[edges[what.edge].t].id}`);
  });
}

// From a box to the strongest one that it leads to, or comes from, or to its neighbour.
function step(number, direction) {
  const strongest = (list, end) => {
    const open = list.filter((edge) => shown[edge]);
    return open.length ? edges[open[0]][end] : null; // edges come strongest first
  };
  if (direction === "ArrowUp") return strongest(outOf[number], "t");
  if (direction === "ArrowDown") return strongest(into[number], "s");
  const [x, y] = nodes[number].box;
  const level = nodes
    .map((node, other) => ({ other, x: node.box[0], y: node.box[1] }))
    .filter((each) => each.y === y && (direction === "ArrowRight" ? each.x > x : each.x < x))
    .sort((a, b) => Math.abs(a.x - x) - Math.abs(b.x - x));
  return level.length ? level[0].other : null;
}

function onKey(event) {
  const typing = event.target.closest("input, textarea, select");
  if (event.key === "Escape") {
    if (typing) typing.blur();
    else select(null);
    return;
  }
  if (typing || event.ctrlKey || event.metaKey || event.altKey || by("keys").open) return;
  const what = selected();
  const at = event.target.closest && event.target.closest(".node[data-n]");
  const number = at ? Number(at.dataset.n) : what && what.node !== undefined ? what.node : null;
  const acts = {
    "/": () => searchField.focus(),
    "?": () => by("keys").showModal(),
    "+": () => zoom(1.25),
    "=": () => zoom(1.25),
    "-": () => zoom(0.8),
    0: () => fit(),
    n: () => nextFound(1),
    p: () => { if (number !== null) { togglePin(nodes[number].id); changed(); } },
    Enter: () => { if (at) select(nodes[number].id); },
    " ": () => { if (at) select(nodes[number].id); },
  };
  if (event.key.startsWith("Arrow") && number !== null) {
    acts[event.key] = () => {
      const next = step(number, event.key);
      if (next === null) return;
      select(nodes[next].id);
      boxes[next].focus({ preventScroll: true });
    };
  }
  if (!(event.key in acts)) return;
  if (["Enter", " "].includes(event.key) && !at) return;
  event.preventDefault();
  acts[event.key]();
}

function drawAll() {
  showControls();
  drawAnnotations();
  drawPanel();
}

document.documentElement.classList.add("js");
const work = document.querySelector(".work");
document.documentElement.style.setProperty("--top", `${Math.min(work.offsetTop, 330)}px`);
startCamera();
startControls();
startPointer();
document.addEventListener("keydown", onKey);
window.addEventListener("hashchange", () => {
  clearTimeout(waiting); // the reader's address counts, not the one about to be written
  waiting = null;
  Object.assign(state, fromHash(location.hash));
  if (state.camera) [camera.x, camera.y, camera.scale] = state.camera;
  else fit();
  place();
  drawAll();
});
window.addEventListener("pagehide", () => { if (waiting !== null) keepNow(); });
drawAll();
document.documentElement.classList.add("ready");
