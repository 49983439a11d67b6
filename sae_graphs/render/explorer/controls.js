// The toolbar, the keyboard, the pointer; and the start.

const by = (id) => document.getElementById(id);
const searchField = by("search");

function select(on) {
  state.on = on;
  keep();
  const what = selected();
  light(what);
  drawPanel();
  const number = what && (what.node !== undefined ? what.node : what.group !== undefined ? what.nodes[0] : null);
  if (number === null || number === undefined) return;
  reveal(boxOf(number));
  keepReachable(elementOf(number));
  if (document.activeElement.closest(".stage")) elementOf(number).focus({ preventScroll: true });
}

// After pins, labels or groups have changed.
function changed() {
  if (state.on && !selected()) state.on = null; // a group that is no more
  edited();
  drawAnnotations();
  drawPanel();
}

// Something was written: kept, and a file that was loaded can no longer be taken back without loss.
function edited() {
  if (by("said").querySelector("button")) say("");
  keep();
}

// -- the toolbar -----------------------------------------------------------------------------------

function showControls() {
  by("least").max = String(Math.max(sizes.length - 1, 0));
  const place = sizes.findIndex((size) => size >= state.least);
  by("least").value = String(state.least > 0 ? (place < 0 ? sizes.length - 1 : place) : 0);
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
    state.least = place === 0 ? 0 : sizes[place];
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
  by("more").addEventListener("click", (event) => {
    const open = event.currentTarget.getAttribute("aria-expanded") !== "true";
    event.currentTarget.setAttribute("aria-expanded", String(open));
    measure();
  });
  by("save").addEventListener("click", download);
  by("load").addEventListener("click", () => by("file").click());
  by("file").addEventListener("change", (event) => upload(event.target));
  by("keys-button").addEventListener("click", () => by("keys").showModal());
}

function nextFound(step) {
  const found = drawSearch();
  if (!found.length) return;
  const what = selected();
  const at = found.indexOf(what ? what.node : -1);
  const now = at < 0 && step < 0 ? 0 : at;
  select(nodes[found[(now + step + found.length) % found.length]].id);
}

function say(text, ...more) {
  by("said").replaceChildren(text, ...more);
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
  const before = writtenNow();
  Object.assign(state, written);
  changed();
  const undo = make("button", {
    class: "small",
    text: "undo",
    onclick: () => { Object.assign(state, before); changed(); say("as it was before"); },
  });
  say(left ? `loaded; ${left} parts of the file do not fit this graph ` : "loaded ", undo);
}

// -- pointer and keyboard --------------------------------------------------------------------------

const underPointer = (event) => {
  const box = event.target.closest(".node");
  if (box && box.dataset.n !== undefined) return { node: Number(box.dataset.n) };
  if (box) return groupUnder(box);
  const arrow = event.target.closest("g.edge");
  return arrow ? { edge: Number(arrow.dataset.e) } : null;
};

function groupUnder(element) {
  const { members, group: { name } } = folds.find((fold) => fold.element === element);
  return { nodes: members, group: name };
}

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
    if (event.target.closest(".zoom")) return;
    const what = underPointer(event);
    if (!what) select(null);
    else if (what.group !== undefined) select(GROUP + what.group);
    else if (what.node !== undefined) select(nodes[what.node].id);
    else select(`${nodes[edges[what.edge].s].id}>${nodes[edges[what.edge].t].id}`);
  });
}

// From a box, or a folded group, to the strongest one that it leads to, or comes from, or beside it.
function step(numbers, direction) {
  const strongest = (lists, end) => {
    const open = numbers
      .flatMap((number) => lists[number])
      .filter((edge) => shown[edge] && !numbers.includes(edges[edge][end]));
    return open.length ? edges[Math.min(...open)][end] : null; // edges come strongest first
  };
  if (direction === "ArrowUp") return strongest(outOf, "t");
  if (direction === "ArrowDown") return strongest(into, "s");
  const [x, y] = boxOf(numbers[0]);
  const level = nodes
    .map((node, other) => ({ other, box: boxOf(other) }))
    .filter(({ other, box }) => !elementOf(other).classList.contains("off") && box[1] === y && (direction === "ArrowRight" ? box[0] > x : box[0] < x))
    .sort((a, b) => Math.abs(a.box[0] - x) - Math.abs(b.box[0] - x));
  return level.length ? level[0].other : null;
}

// What the keyboard speaks of: the box that has the focus, else the selection.
function current(event) {
  const box = event.target.closest && event.target.closest(".node");
  if (box) return underPointer(event);
  const what = selected();
  return what && what.edge === undefined ? what : null;
}

const PAN = { ArrowUp: [0, 80], ArrowDown: [0, -80], ArrowLeft: [80, 0], ArrowRight: [-80, 0] };

function follow(what, direction) {
  const numbers = what ? what.nodes || [what.node] : null;
  const next = numbers ? step(numbers, direction) : edges.length ? edges[0].s : null;
  if (next === null) return;
  const fold = foldOf(next);
  select(fold ? GROUP + fold.group.name : nodes[next].id);
  elementOf(next).focus({ preventScroll: true });
}

function onKey(event) {
  if (by("keys").open) return; // the dialog has its own keys
  const typing = event.target.closest("input, textarea, select");
  if (event.key === "Escape") {
    if (typing) typing.blur();
    else select(null);
    return;
  }
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const what = current(event);
  const atBox = event.target.closest(".node");
  const choose = () => select(what.group !== undefined ? GROUP + what.group : nodes[what.node].id);
  const acts = {
    "/": () => searchField.focus(),
    "?": () => by("keys").showModal(),
    "+": () => zoom(1.25),
    "=": () => zoom(1.25),
    "-": () => zoom(0.8),
    0: () => fit(),
    n: () => nextFound(1),
  };
  if (what && what.node !== undefined) {
    const { id } = nodes[what.node];
    acts.p = () => { togglePin(id); changed(); };
    if (features.includes(id)) acts.x = () => toggleOff(id);
  }
  if (atBox) Object.assign(acts, { Enter: choose, " ": choose });
  if (event.key in PAN) acts[event.key] = () => (event.shiftKey ? pan(...PAN[event.key]) : follow(what, event.key));
  if (!(event.key in acts)) return;
  event.preventDefault();
  acts[event.key]();
}

function drawAll() {
  showControls();
  drawAnnotations();
  drawSwitched();
  drawPanel();
  drawResult();
}

// The drawing takes what the window has left below header and toolbar.
function measure() {
  const work = document.querySelector(".work");
  document.documentElement.style.setProperty("--top", `${Math.min(Math.ceil(work.offsetTop), 330)}px`);
}

document.documentElement.classList.add("js");
panel.tabIndex = -1;
const readToken = document.querySelector(".prompt .read");
if (readToken) readToken.parentElement.scrollTop = readToken.offsetTop - readToken.parentElement.offsetTop - 40;
showControls();
measure();
restoreCamera();
startCamera();
startControls();
startPointer();
document.addEventListener("keydown", onKey);
window.addEventListener("resize", () => { measure(); restoreCamera(); });
window.addEventListener("hashchange", () => {
  clearTimeout(waiting); // the reader's address counts, not the one about to be written
  waiting = null;
  Object.assign(state, fromHash(location.hash));
  restoreCamera();
  drawAll();
});
window.addEventListener("beforeprint", drawNotes);
window.addEventListener("pagehide", () => { if (waiting !== null) keepNow(); });
drawAll();
measure();
restoreCamera();
document.documentElement.classList.add("ready");
