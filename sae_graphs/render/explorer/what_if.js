// What if: features switched off, or set to a multiple, and what the answer is then. Shown is only
// what was measured: in this page, or by who served it. Nothing is ever added up.

const SWITCHES = [["1", "as it is"], ["off", "off"], ["0", "×0"], ["0.5", "×0.5"], ["2", "×2"], ["4", "×4"], ["-1", "×−1"]];
const MOST_TICKS = 40; // in the panel of the whole graph; each box has its own in its panel
const answers = new Map(); // what was told before, by what was asked
const result = make("section", { class: "what-if", "aria-label": "what if" });
let asked = 0; // questions so far: only the last one's answer is shown
let askServer = null; // set where the page comes from a server: changes to a promise of an answer

const switched = () => Object.keys(state.set);
const setWords = (value) => (value === "off" ? "off" : `×${String(value).replace("-", "−")}`);
const features = data.whatIf ? nodes.filter((node) => canSet(node.id)).map((node) => node.id) : [];

function setFeature(id, value) {
  const { [id]: _, ...rest } = state.set;
  state.set = value === 1 ? rest : { ...rest, [id]: value };
  drawSet();
}

const toggleOff = (id) => setFeature(id, state.set[id] === "off" ? 1 : "off");

function setAll(ids) {
  state.set = Object.fromEntries(ids.map((id) => [id, "off"]));
  drawSet();
}

// After something was switched: the boxes, the panel, the answer.
function drawSet() {
  keep();
  drawSwitched();
  drawPanel();
  drawResult();
}

// -- the drawing -----------------------------------------------------------------------------------

function drawSwitched() {
  if (!switched().length && !stage.querySelector(".changed")) return;
  boxes.forEach((box, number) => {
    const value = state.set[nodes[number].id];
    box.classList.toggle("without", value === "off" || value === 0);
    box.classList.toggle("changed", value !== undefined);
    box.querySelectorAll(".switched").forEach((old) => old.remove());
    if (value !== undefined) box.append(make("span", { class: "switched", text: setWords(value) }));
    drawWords(number);
  });
  const gone = (number) => boxes[number].classList.contains("without");
  edges.forEach((edge, number) => arrows[number].classList.toggle("without", gone(edge.s) || gone(edge.t)));
}

// -- the panel -------------------------------------------------------------------------------------

// A box's own switch: a tick, and how strong it is to be.
function switchOf(id) {
  if (!features.includes(id)) return null;
  const value = state.set[id] === undefined ? 1 : state.set[id];
  const known = SWITCHES.some(([each]) => each === String(value));
  const choices = known ? SWITCHES : [...SWITCHES, [String(value), setWords(value)]];
  const choice = make("select", { "data-key": `set ${id}`, "aria-label": `what ${id} is set to`, onchange: () => setFeature(id, choice.value === "off" ? "off" : Number(choice.value)) },
    ...choices.map(([each, text]) => make("option", { value: each, text })));
  choice.value = String(value);
  return make("div", { class: "switch" }, make("b", { text: "What if" }), tick(id, "on"), choice,
    make("small", { class: "faint", text: `off: ${data.whatIf.off}` }));
}

function tick(id, words, title = null) {
  const box = make("input", { type: "checkbox", "data-key": `tick ${id}`, "aria-label": `${id} is on`, onchange: () => toggleOff(id) });
  box.checked = state.set[id] === undefined;
  box.indeterminate = state.set[id] !== undefined && state.set[id] !== "off";
  return make("label", { title }, box, words);
}

// All features with their ticks, where nothing is selected.
function whatIfPanel() {
  if (!data.whatIf || !features.length) return null;
  const strength = (id) => Math.abs(nodes[numberOf.get(id)].pull || 0);
  const order = [...features].sort((a, b) => strength(b) - strength(a));
  const rows = order.slice(0, MOST_TICKS).map((id) => {
    const node = nodes[numberOf.get(id)];
    const row = make("div", { class: "tick", onmouseenter: () => light({ node: numberOf.get(id) }), onmouseleave: () => light(selected()) },
      tick(id, ""), link(numberOf.get(id)), make("span", { class: "faint means", text: node.meant || "" }), make("span", { class: "number", text: node.says || "" }));
    return row;
  });
  const left = features.length - rows.length;
  return section(
    "What if",
    make("p", { class: "faint", text: `Tick a feature off (${data.whatIf.off}) and see what comes next.` }),
    make("p", {}, make("button", { class: "small", "data-key": "all off", text: `all ${features.length} drawn features off`, onclick: () => setAll(features) })),
    make("div", { class: "ticks" }, ...rows),
    left ? make("p", { class: "faint", text: `${left} more: select a box` }) : null,
  );
}

// -- the answer ------------------------------------------------------------------------------------

const keyOf = () => switched().sort().map((id) => (state.set[id] === "off" ? id : `${id}=${state.set[id]}`)).join("+");

// What is asked, in words.
function questionWords() {
  const off = switched().filter((id) => state.set[id] === "off");
  const other = switched().filter((id) => state.set[id] !== "off").map((id) => `${id} ${setWords(state.set[id])}`);
  const some = off.length > 3 ? [counted(off.length, "feature")] : off;
  return [...(off.length ? [`without ${some.join(", ")}`] : []), ...(other.length ? [`with ${other.slice(0, 3).join(", ")}${other.length > 3 ? " ..." : ""}`] : [])].join(", ");
}

function drawResult() {
  const mine = ++asked;
  const key = keyOf();
  result.hidden = !key;
  if (!key) return;
  const held = (data.whatIf.outcomes || {})[key] || answers.get(key);
  if (held) showResult(held);
  else if (!askServer) showResult({ problem: elsewhere() });
  else {
    showResult({ waiting: "asking ..." });
    setTimeout(() => askOn(mine, key), 200);
  }
}

// Asks until there is an answer, or another question.
async function askOn(mine, key) {
  while (mine === asked) {
    const found = await askServer({ ...state.set });
    if (mine !== asked) return;
    if (!found.waiting && !found.problem) answers.set(key, found);
    showResult(found);
    if (!found.waiting) return;
    await new Promise((done) => { setTimeout(done, 400); });
  }
}

// In a run's folder the page knows what that is called; elsewhere it says what it usually is.
function elsewhere() {
  let command = data.whatIf.command;
  const parts = location.pathname.split("/");
  if (location.protocol === "file:" && parts.at(-1) === "graph.html" && parts.length > 3) {
    try {
      command = `sae-graphs view ${parts.slice(-3, -1).map((part) => visible(decodeURIComponent(part))).join("/")}`;
    } catch {
      command = data.whatIf.command; // a folder whose name is no text
    }
  }
  const none = data.whatIf.outcomes === null ? "This run holds no changed answers. " : "";
  return [none, make("code", { text: command }), " answers this."];
}

function showResult(found) {
  const reset = make("button", { class: "small", "data-key": "reset", text: "reset", onclick: () => setAll([]) });
  const told = found.problem ? make("p", { role: "status" }, ...[found.problem].flat())
    : make("p", { role: "status", text: found.waiting || sentence(found.words) });
  const had = result.contains(document.activeElement);
  result.replaceChildren(
    make("div", { class: "title" }, make("h3", { text: `What if: ${questionWords()}` }), reset),
    told,
    ...(found.rows ? [bars(found.rows)] : []),
    ...(found.notes || []).map((text) => make("p", { class: "faint", text })),
  );
  if (had) reset.focus({ preventScroll: true });
}

const sentence = (words) => `${words[0].toUpperCase()}${words.slice(1)}.`;

// Each token's probability in the clean run above what it is changed to.
function bars(rows) {
  const bar = (share, name) => make("div", { class: `chance ${name}`, style: `width:${(100 * Math.min(Math.max(share, 0), 1)).toFixed(1)}%` });
  const lines = rows.map(([token, before, after, first, last]) =>
    make("tr", {}, make("td", {}, make("code", { text: token })),
      make("td", { class: "chances" }, bar(before, "clean"), bar(after, "now")),
      make("td", { class: "number faint", text: first }), make("td", { class: "number", text: last })));
  const head = make("tr", { class: "faint" }, make("td", { text: "next token" }), make("td"), make("td", { class: "number", text: "clean" }), make("td", { class: "number", text: "changed" }));
  return make("table", { class: "odds" }, head, ...lines);
}
