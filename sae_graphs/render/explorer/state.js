// What the reader has chosen and written. It is kept in the address, after `#`, and in a file that
// `sae-graphs graph --annotations` draws.

const SCHEMA = "sae_graphs/annotations/1";
const LONGEST = 2000;
const VIEW = {
  on: null, least: 0, top: null, sign: "both", whole: false, component: 0, query: "", camera: null, set: {},
};
const WRITTEN = { title: null, caption: null, pins: [], groups: [], labels: {}, notes: {}, note: null };

const isText = (value) => typeof value === "string" && [...value].length <= LONGEST;
const MOST_TIMES = 100; // a feature may be set to so many times what it is
const canSet = (id) => Boolean(data.whatIf) && numberOf.has(id) && !nodes[numberOf.get(id)].own;
const known = (ids) => (Array.isArray(ids) ? [...new Set(ids.filter((id) => numberOf.has(id)))] : []);

// A file's annotations as far as they fit this graph; `left` counts what does not: features that it
// lacks, texts that are too long, groups that share a name or a feature with another.
function annotationsFrom(file) {
  if (!file || typeof file !== "object" || file.schema !== SCHEMA) return null;
  const found = { ...structuredClone(WRITTEN), left: 0 };
  const fit = (ids) => {
    const kept = known(ids);
    found.left += Array.isArray(ids) ? new Set(ids).size - kept.length : 0;
    return kept;
  };
  const take = (text) => {
    if (text === null || text === undefined || text === "") return null;
    if (isText(text)) return text;
    found.left += 1;
    return null;
  };
  for (const name of ["title", "caption", "note"]) found[name] = take(file[name]);
  found.pins = fit(file.pins);
  const taken = new Set();
  for (const group of Array.isArray(file.groups) ? file.groups : []) {
    const name = group && take(group.name);
    const features = name && name.trim() ? fit(group.features) : [];
    const free = features.filter((id) => !taken.has(id));
    const isNew = !found.groups.some((other) => other.name === name);
    if (free.length < features.length || !free.length || !isNew) found.left += 1;
    if (!free.length || !isNew) continue;
    free.forEach((id) => taken.add(id));
    found.groups.push({ name, features: free, folded: group.folded === true });
  }
  for (const kind of ["labels", "notes"]) {
    for (const [id, text] of Object.entries(file[kind] || {})) {
      const kept = take(text);
      if (fit([id]).length && kept) found[kind][id] = kept;
    }
  }
  return found;
}

// `camera` is the point of the drawing in the middle of the view, and the scale; `set` holds the
// features that are switched, each "off" or so many times what it is.
function viewFrom(kept) {
  const view = { ...VIEW, set: {} };
  if (!kept || typeof kept !== "object") return view;
  if (isText(kept.on)) view.on = kept.on;
  if (Number.isFinite(kept.least) && kept.least > 0) view.least = kept.least;
  if (Number.isInteger(kept.top) && kept.top >= 1) view.top = kept.top;
  if (["promotes", "suppresses"].includes(kept.sign)) view.sign = kept.sign;
  view.whole = kept.whole === true;
  if (data.components.includes(kept.component)) view.component = kept.component;
  if (isText(kept.query)) view.query = kept.query;
  for (const [id, value] of Object.entries(kept.set || {})) {
    const fits = value === "off" || (Number.isFinite(value) && Math.abs(value) <= MOST_TIMES && value !== 1 && Number(value.toFixed(6)) === value);
    if (canSet(id) && fits) view.set[id] = value;
  }
  const camera = kept.camera;
  if (Array.isArray(camera) && camera.length === 3 && camera.every(Number.isFinite) && camera[2] > 0) {
    view.camera = camera;
  }
  return view;
}

const GROUP = "group:";

// `3.988` is a box, `3.988>4.685` an arrow, `group:brackets` a group of the reader's.
function selectionOf(text, groups) {
  if (text.startsWith(GROUP)) {
    const found = groups.find((each) => each.name === text.slice(GROUP.length));
    return found ? { nodes: found.features.map((id) => numberOf.get(id)), group: found.name } : null;
  }
  const [source, target] = text.split(">").map((id) => numberOf.get(id));
  if (!text.includes(">")) return source === undefined ? null : { node: source };
  const edge = edges.findIndex((each) => each.s === source && each.t === target);
  return edge < 0 ? null : { edge };
}

const given = annotationsFrom(data.annotations) || structuredClone(WRITTEN);
delete given.left;

// What differs from the page as it was made, as text for the address; empty where nothing does.
function toHash(state) {
  const kept = {};
  for (const [name, usual] of Object.entries({ ...VIEW, ...given })) {
    if (JSON.stringify(state[name]) !== JSON.stringify(usual)) kept[name] = state[name];
  }
  return Object.keys(kept).length ? `#${encodeURIComponent(JSON.stringify(kept))}` : "";
}

function fromHash(hash) {
  let kept = {};
  try {
    kept = JSON.parse(decodeURIComponent(hash.slice(1))) || {};
  } catch {
    kept = {}; // an address that somebody cut or changed: the page as it was made
  }
  const written = annotationsFrom({ ...given, ...kept, schema: SCHEMA });
  delete written.left;
  const view = viewFrom(kept);
  if (view.on !== null && !selectionOf(view.on, written.groups)) view.on = null;
  return { ...view, ...written };
}

// What the reader has written, to be put back.
const writtenNow = () => structuredClone(Object.fromEntries(Object.keys(WRITTEN).map((name) => [name, state[name]])));

// The file: annotations alone, as `sae_graphs.annotations` reads them.
function toFile(state) {
  const file = { schema: SCHEMA, prompt: data.prompt, model: data.model };
  for (const name of Object.keys(WRITTEN)) file[name] = state[name];
  return `${JSON.stringify(file, null, 1)}\n`;
}

const state = fromHash(location.hash);
let waiting = null;

// To be called after every change: keeps it in the address, a moment later.
function keep() {
  clearTimeout(waiting);
  waiting = setTimeout(keepNow, 150);
}

function keepNow() {
  clearTimeout(waiting);
  waiting = null;
  try {
    history.replaceState(null, "", toHash(state) || location.pathname + location.search);
  } catch {
    if (location.protocol === "about:") return; // inside a notebook a page has no address of its own
    document.getElementById("said").textContent = "too much for the address: save it as a file";
  }
}

const isPinned = (id) => state.pins.includes(id);

function togglePin(id) {
  state.pins = isPinned(id) ? state.pins.filter((other) => other !== id) : [...state.pins, id];
}

// Puts features into a new group; they leave the ones they were in. Returns what is wrong, if it is.
function group(name, features) {
  const called = name.trim();
  if (!called || !isText(called)) return "Give the group a name.";
  if (state.groups.some((other) => other.name === called)) return `There is a group ${called} already.`;
  if (!features.length) return "Pin the features that belong together first.";
  const rest = state.groups
    .map((other) => ({ ...other, features: other.features.filter((id) => !features.includes(id)) }))
    .filter((other) => other.features.length);
  state.groups = [...rest, { name: called, features: [...features], folded: false }];
  return "";
}

function write(kind, id, text) {
  const { [id]: _, ...rest } = state[kind];
  state[kind] = text.trim() ? { ...rest, [id]: [...text].slice(0, LONGEST).join("") } : rest;
}
