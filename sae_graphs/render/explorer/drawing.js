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
let places = edges.map((edge) => edge.at); // of their numbers
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
const elementOf = (number) => (foldOf(number) || { element: boxes[number] }).element;

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
  for (const { members, element } of folds) {
    element.classList.toggle("off", !members.some((n) => alive.has(n) || isPinned(nodes[n].id)));
  }
  const left = shown.filter(Boolean).length;
  const all = counted(edges.length, "arrow");
  document.getElementById("shown").textContent = left === edges.length ? all : `${left} of ${all}`;
  light(selected());
}

function drawSearch() {
  const found = search(state.query, state);
  stage.querySelectorAll(".found").forEach((old) => old.classList.remove("found"));
  for (const number of found) elementOf(number).classList.add("found");
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
  const element = elementOf(number);
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

const selected = () => (state.on ? selectionOf(state.on, state.groups) : null);

// -- pins, labels, groups --------------------------------------------------------------------------

function drawAnnotations() {
  boxes.forEach((box, number) => {
    drawWords(number);
    box.classList.toggle("pinned", isPinned(nodes[number].id));
    const group = groupOf(state, nodes[number].id);
    box.querySelectorAll(".tab").forEach((old) => old.remove());
    if (group && !group.folded) box.append(make("span", { class: "tab", text: visible(group.name) }));
  });
  drawTitles();
  drawNotes();
  drawFolds();
}

// A box's label, and the sign that it has a note.
function drawWords(number) {
  const { id, name } = nodes[number];
  const label = visible(state.labels[id] || "");
  const box = boxes[number];
  box.classList.toggle("noted", Boolean(state.notes[id]));
  box.classList.toggle("labelled", Boolean(label));
  box.querySelectorAll(".label").forEach((old) => old.remove());
  if (label) box.querySelector(".head").prepend(make("span", { class: "label", text: label, title: label }));
  if (box.dataset.aloud === undefined) box.dataset.aloud = box.getAttribute("aria-label");
  const value = state.set[id] === undefined ? "" : `, switched ${setWords(state.set[id])}`;
  box.setAttribute("aria-label", (label ? `${label}, ${box.dataset.aloud}` : box.dataset.aloud || name) + value);
}

const heading = document.querySelector("h1");
const usual = heading.textContent;

function drawTitles() {
  heading.textContent = visible(state.title || "") || (given.title === null ? usual : "Causal graph");
  const caption = document.querySelector(".figure-caption");
  caption.textContent = visible(state.caption || "");
  caption.hidden = !state.caption;
}

// On paper there is no panel: what was written stands below the drawing.
function drawNotes() {
  const rows = boxes.flatMap((_, number) => {
    const { id, name } = nodes[number];
    const words = [state.labels[id], state.notes[id]].filter(Boolean).map(visible).join(": ");
    return words ? [make("p", {}, make("b", { text: name }), ` ${words}`)] : [];
  });
  const whole = state.note ? [make("p", { text: visible(state.note) })] : [];
  document.getElementById("notes").replaceChildren(...whole, ...rows);
}

function drawFolds() {
  for (const fold of folds) fold.element.remove();
  folds = state.groups.filter((group) => group.folded).map(foldedBox);
  boxes.forEach((box, number) => box.classList.toggle("folded", Boolean(foldOf(number))));
  routeAll();
  keepReachable();
  drawFilters();
  drawSearch();
}

// One box at a time can be reached by the tab key: this one, or the first that is there.
function keepReachable(element = null) {
  const there = [...boxes.filter((box, number) => !foldOf(number)), ...folds.map((fold) => fold.element)];
  const now = element || there.find((each) => each.tabIndex === 0) || there[0];
  for (const each of [...boxes, ...there]) each.tabIndex = each === now ? 0 : -1;
}

// One box for all members, where the member stands that is nearest to the middle of them.
function foldedBox(group) {
  const members = group.features.map((id) => numberOf.get(id));
  const centres = members.map((number) => middleOfBox(nodes[number].box));
  const mean = [0, 1].map((axis) => centres.reduce((sum, at) => sum + at[axis], 0) / centres.length);
  const far = centres.map(([x, y]) => Math.hypot(x - mean[0], y - mean[1]));
  const { box } = nodes[members[far.indexOf(Math.min(...far))]];
  const inside = edges.filter((edge) => members.includes(edge.s) && members.includes(edge.t)).length;
  const facts = counted(members.length, "feature") + (inside ? `, ${counted(inside, "arrow")} inside` : "");
  const name = visible(group.name);
  const element = make(
    "div",
    {
      class: "node super",
      role: "button",
      tabindex: "-1",
      "aria-label": `group ${name}, ${facts}`,
      style: `left:${box[0]}px;top:${box[1]}px;width:${box[2]}px;height:${box[3]}px`,
    },
    make("div", { class: "head" }, make("b", { text: name })),
    make("div", { class: "line faint", text: facts }),
    make("div", { class: "members", text: group.features.join(" · ") }),
  );
  stage.append(element);
  return { group, members, box, element };
}

const middleOfBox = ([x, y, width, height]) => [x + width / 2, y + height / 2];

// Every arrow's line, and where its number stands: as laid out, or around the boxes where an end is
// folded.
function routeAll() {
  places = edges.map((edge) => edge.at);
  const taken = edges.flatMap((edge) => (foldOf(edge.s) || foldOf(edge.t) ? [] : [edge.at]));
  let lane = 0;
  edges.forEach(({ s, t }, number) => {
    const [line, near] = arrows[number].children;
    if (line.dataset.laid === undefined) line.dataset.laid = line.getAttribute("d");
    let path = line.dataset.laid;
    if ((foldOf(s) || foldOf(t)) && foldOf(s) !== foldOf(t)) {
      const [from, to] = [boxOf(s), boxOf(t)];
      path = direct(from, to);
      line.setAttribute("d", path);
      const isAbove = to[1] + to[3] < from[1];
      if (!isAbove || crossesBox(line, [from, to])) path = detour(from, to, lane++);
    }
    line.setAttribute("d", path);
    if (near) near.setAttribute("d", path);
    if (path !== line.dataset.laid) {
      places[number] = freePlace(line, taken);
      taken.push(places[number]);
    }
    const text = numbers.get(number);
    if (!text) return;
    text.setAttribute("x", places[number][0]);
    text.setAttribute("y", places[number][1]);
  });
}

const pointsOf = (line, n) => {
  const length = line.getTotalLength();
  return Array.from({ length: n + 1 }, (_, step) => line.getPointAtLength((length * step) / n));
};

// Whether a line runs behind a box that is neither of its ends.
function crossesBox(line, ends) {
  const others = [...nodes.flatMap((node, number) => (foldOf(number) ? [] : [node.box])), ...folds.map((fold) => fold.box)]
    .filter((box) => !ends.includes(box));
  return pointsOf(line, 80).some(({ x, y }) =>
    others.some(([left, top, width, height]) => x > left && x < left + width && y > top && y < top + height));
}

// Where a number of a moved arrow covers no other: along its line, the middle first.
function freePlace(line, taken) {
  const ways = pointsOf(line, 20).map(({ x, y }) => [Math.round(x), Math.round(y)]);
  const order = [10, 8, 12, 6, 14, 5, 15, 4, 16, 9, 11, 7, 13, 3, 17].map((step) => ways[step]);
  const isFree = ([x, y]) => !taken.some((at) => Math.abs(x - at[0]) < 40 && Math.abs(y - at[1]) < 14);
  return order.find(isFree) || order[0];
}

// From the top of one box to the bottom of another.
function direct(from, to) {
  const [x0, y0] = [from[0] + from[2] / 2, from[1]];
  const [x1, y1] = [to[0] + to[2] / 2, to[1] + to[3]];
  const bend = Math.max(30, Math.abs(y0 - y1) / 2);
  return `M${x0},${y0}C${x0},${y0 - bend} ${x1},${y1 + bend} ${x1},${y1 + 10}L${x1},${y1}`;
}

// The same at right angles through the gaps between layers and a lane right of all boxes: layers are
// level, so that it passes none.
function detour(from, to, lane) {
  const [x0, y0] = [from[0] + from[2] * 0.7, from[1]];
  const [x1, y1] = [to[0] + to[2] * 0.7, to[1] + to[3]];
  const step = 4 * (lane % 6);
  const side = whole.width - 26 + step;
  return `M${x0},${y0}V${y0 - 16 - step}H${side}V${y1 + 18 + step}H${x1}V${y1 + 10}L${x1},${y1}`;
}

const middleOf = (number) => places[number];
