// The drawing follows the state: what is filtered, lit, found, pinned, grouped.

const boxes = [...stage.querySelectorAll(".node[data-n]")].sort((a, b) => a.dataset.n - b.dataset.n);
const arrows = edges.map(() => null);
for (const arrow of stage.querySelectorAll("g.edge")) arrows[Number(arrow.dataset.e)] = arrow;
const numbers = new Map(
  [...stage.querySelectorAll(".numbers text")].map((text) => [Number(text.dataset.e), text]),
);
const overlay = stage.querySelector(".lit");
const SVG = "http://www.w3.org/2000/svg";
const MOST_NUMBERS = 60; // of lit arrows, beyond which they would cover each other
const MOST_COPIES = 300;
const BUNDLE = 16; // arrows of one path
let shown = shownEdges(state);
let folds = []; // the boxes of folded groups: { group, members, box, element }
let litNow = [];

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "text") element.textContent = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const foldOf = (number) => folds.find((fold) => fold.members.includes(number)) || null;
const boxOf = (number) => (foldOf(number) || nodes[number]).box;

// -- filters ---------------------------------------------------------------------------------------

function drawFilters() {
  shown = shownEdges(state);
  const alive = new Set();
  edges.forEach((edge, number) => {
    const inside = foldOf(edge.s) && foldOf(edge.s) === foldOf(edge.t);
    arrows[number].classList.toggle("off", !shown[number] || Boolean(inside));
    if (numbers.has(number)) numbers.get(number).classList.toggle("off", !shown[number] || Boolean(inside));
    if (shown[number]) alive.add(edge.s).add(edge.t);
  });
  boxes.forEach((box, number) => {
    box.classList.toggle("off", !alive.has(number) && !isPinned(nodes[number].id));
  });
  for (const fold of folds) fold.element.classList.toggle("off", !fold.members.some((n) => alive.has(n)));
  const left = shown.filter(Boolean).length;
  document.getElementById("shown").textContent =
    left === edges.length ? `${left} arrows` : `${left} of ${edges.length} arrows`;
  light(selected());
}

function drawSearch() {
  const found = search(state.query, state);
  boxes.forEach((box) => box.classList.remove("found"));
  for (const number of found) {
    const fold = foldOf(number);
    (fold ? fold.element : boxes[number]).classList.add("found");
  }
  document.getElementById("found").textContent = state.query.trim() ? `${found.length} found` : "";
  return found;
}

// -- light -----------------------------------------------------------------------------------------

// The boxes of a selection: one, those of a group or path, or both ends of an arrow.
function endsOf(start) {
  if (start.edge !== undefined) return [edges[start.edge].s, edges[start.edge].t];
  return start.nodes || [start.node];
}

// The arrows among some boxes, or one of them alone.
function between(ends, edge) {
  const inside = edges.flatMap((each, number) =>
    shown[number] && ends.includes(each.s) && ends.includes(each.t) ? [number] : []);
  const kept = edge === undefined ? inside : [edge];
  return { up: { boxes: new Set(), arrows: new Set(kept) }, down: { boxes: new Set(), arrows: new Set() } };
}

// Dims all but what leads to a selection and what it leads to; `alone`, all but itself.
function light(start) {
  for (const element of litNow) element.classList.remove("on", "self", "up", "down");
  litNow = [];
  overlay.replaceChildren();
  stage.classList.toggle("dim", Boolean(start));
  if (!start) return;
  const ends = endsOf(start);
  const among = start.alone || start.edge !== undefined;
  const { up, down } = among ? between(ends, start.edge) : reached(ends, shown);
  for (const number of ends) mark(number, "self");
  for (const number of up.boxes) mark(number, "up");
  for (const number of down.boxes) mark(number, "down");
  const lit = [...up.arrows, ...down.arrows].filter((number) => !arrows[number].classList.contains("off"));
  overlay.append(...(lit.length > MOST_COPIES ? bundled(lit) : lit.map(copied)));
  const near = new Set(ends.flatMap((number) => [...into[number], ...outOf[number]]));
  const told = lit.filter((number) => numbers.has(number) || near.has(number));
  overlay.append(...told.slice(0, MOST_NUMBERS).map(numberText));
}

function copied(number) {
  const copy = arrows[number].cloneNode(false);
  copy.append(arrows[number].firstElementChild.cloneNode(false));
  return copy;
}

// Many arrows as few paths, by sign and width: an element for each would be felt, and so would one
// path for all, which is slow to paint.
function bundled(list) {
  const bundles = new Map();
  for (const number of list) {
    const line = arrows[number].firstElementChild;
    const width = Math.round(parseFloat(line.style.getPropertyValue("--w")));
    const key = `${signOf(edges[number])} ${width}`;
    if (!bundles.has(key)) bundles.set(key, []);
    bundles.get(key).push(line.getAttribute("d"));
  }
  const paths = [...bundles].flatMap(([key, lines]) => {
    const parts = Math.ceil(lines.length / BUNDLE);
    return Array.from({ length: parts }, (_, part) => [key, lines.slice(part * BUNDLE, (part + 1) * BUNDLE)]);
  });
  return paths.map(([key, lines]) => {
    const [name, width] = key.split(" ");
    const line = document.createElementNS(SVG, "path");
    line.setAttribute("d", lines.join(""));
    line.setAttribute("class", `edge ${name}`);
    line.setAttribute("style", `--w:${width}px`);
    return line;
  });
}

function mark(number, how) {
  const fold = foldOf(number);
  const element = fold ? fold.element : boxes[number];
  element.classList.add("on", how);
  litNow.push(element);
}

function numberText(number) {
  const text = document.createElementNS(SVG, "text");
  const [x, y] = middleOf(number);
  text.setAttribute("x", x);
  text.setAttribute("y", y);
  text.setAttribute("class", signOf(edges[number]));
  text.textContent = edges[number].said;
  return text;
}

const selected = () => (state.on ? selectionOf(state.on) : null);

// -- pins, labels, groups --------------------------------------------------------------------------

function drawAnnotations() {
  boxes.forEach((box, number) => {
    const { id } = nodes[number];
    const group = groupOf(state, id);
    const label = state.labels[id];
    box.classList.toggle("pinned", isPinned(id));
    box.classList.toggle("noted", Boolean(state.notes[id]));
    box.querySelectorAll(".tab, .label").forEach((old) => old.remove());
    if (label) box.querySelector(".head").prepend(make("span", { class: "label", text: label, title: label }));
    box.classList.toggle("labelled", Boolean(label));
    if (group && !group.folded) box.append(make("span", { class: "tab", text: group.name }));
  });
  drawFolds();
}

function drawFolds() {
  for (const fold of folds) fold.element.remove();
  folds = state.groups.filter((group) => group.folded).map(foldedBox);
  boxes.forEach((box, number) => box.classList.toggle("folded", Boolean(foldOf(number))));
  edges.forEach((edge, number) => route(number));
  drawFilters();
  drawSearch();
}

// One box for all members, where the member stands that is nearest to the middle of them.
function foldedBox(group) {
  const members = group.features.map((id) => numberOf.get(id));
  const centres = members.map((number) => middleOfBox(nodes[number].box));
  const mean = [0, 1].map((axis) => centres.reduce((sum, at) => sum + at[axis], 0) / centres.length);
  const far = centres.map(([x, y]) => Math.hypot(x - mean[0], y - mean[1]));
  const { box } = nodes[members[far.indexOf(Math.min(...far))]];
  const inside = edges.filter((edge) => members.includes(edge.s) && members.includes(edge.t)).length;
  const facts = `${members.length} features${inside ? `, ${inside} arrows inside` : ""}`;
  const element = make(
    "div",
    {
      class: "node super",
      role: "button",
      tabindex: "-1",
      "data-group": group.name,
      style: `left:${box[0]}px;top:${box[1]}px;width:${box[2]}px;height:${box[3]}px`,
    },
    make("div", { class: "head" }, make("b", { text: group.name })),
    make("div", { class: "line faint", text: facts }),
    make("div", { class: "members", text: group.features.join(" · ") }),
  );
  stage.append(element);
  return { group, members, box, element };
}

const middleOfBox = ([x, y, width, height]) => [x + width / 2, y + height / 2];

// An arrow's line: as it was laid out, or straight between boxes of which one is folded.
function route(number) {
  const [line, near] = arrows[number].children;
  if (line.dataset.laid === undefined) line.dataset.laid = line.getAttribute("d");
  const { s, t } = edges[number];
  const path = foldOf(s) || foldOf(t) ? direct(boxOf(s), boxOf(t)) : line.dataset.laid;
  if (path === line.getAttribute("d")) return;
  line.setAttribute("d", path);
  if (near) near.setAttribute("d", path);
  const text = numbers.get(number);
  if (!text) return;
  const [x, y] = middleOf(number);
  text.setAttribute("x", x);
  text.setAttribute("y", y);
}

function direct(from, to) {
  const [x0, y0] = [from[0] + from[2] / 2, from[1]];
  const [x1, y1] = [to[0] + to[2] / 2, to[1] + to[3]];
  const bend = Math.max(30, Math.abs(y0 - y1) / 2);
  return `M${x0},${y0}C${x0},${y0 - bend} ${x1},${y1 + bend} ${x1},${y1 + 10}L${x1},${y1}`;
}

function middleOf(number) {
  const { s, t, at } = edges[number];
  if (!foldOf(s) && !foldOf(t)) return at;
  const [from, to] = [boxOf(s), boxOf(t)];
  return [(from[0] + from[2] / 2 + to[0] + to[2] / 2) / 2, (from[1] + to[1] + to[3]) / 2];
}
