// The panel beside the drawing: of a box, of an arrow, or of the whole graph.

const panel = document.querySelector(".panel");
const EMBEDS = "https://www.neuronpedia.org/";
const lowers = (edge) => edge.effect < 0;

function section(title, ...content) {
  const kept = content.filter((each) => each !== null);
  return kept.length ? make("section", {}, make("h3", { text: title }), ...kept) : null;
}

const row = (...cells) => make("tr", {}, ...cells.map((cell) => (cell instanceof Node ? make("td", {}, cell) : make("td", { text: cell }))));
const table = (...rows) => make("table", {}, ...rows);

// A button that leads to a box.
function link(number) {
  const { id, name } = nodes[number];
  const label = visible(state.labels[id] || "");
  return make(
    "button",
    {
      class: "link",
      onclick: () => select(id),
      onmouseenter: () => light({ node: number }),
      onmouseleave: () => light(selected()),
      title: nodes[number].page ? nodes[number].page.words : null,
    },
    label ? `${label} ` : "",
    make("span", { class: label ? "faint" : "", text: name }),
  );
}

function sign(edge) {
  const name = signOf(edge);
  return make("span", { class: `sign ${name}`, text: `${lowers(edge) ? "━▶" : "╌┫"} ${name}` });
}

// Tokens on their shade; hovering tells the activation. Lines break between words alone: spaces are
// hard ones, and a word, which may be many tokens, is a block of its own.
function shaded(tokens, name) {
  const words = [[]];
  for (const [text, shade, value] of tokens) {
    for (const piece of text.split(/(?=\u00a0)|(?<=\u21b5)/u)) {
      const last = words.at(-1).at(-1);
      if (piece.startsWith("\u00a0") || (last && last.textContent.endsWith("\u21b5"))) words.push([]);
      words.at(-1).push(make("span", { class: shade ? `s${shade}` : null, title: value ? `${text}  ${value}` : null, text: piece }));
    }
  }
  const blocks = words.filter((word) => word.length).map((word) => make("span", { class: "word" }, ...word));
  return make("div", { class: `text ${name}` }, ...blocks);
}

// A box's name, the reader's own first.
function nameOf(node) {
  const label = visible(state.labels[node.id] || "");
  return make("span", {}, label ? `${label} ` : "", make("span", { class: label ? "faint" : "", text: node.name }));
}

// -- a box -----------------------------------------------------------------------------------------

function nodePanel(number) {
  const node = nodes[number];
  const group = groupOf(state, node.id);
  const facts = [node.own ? node.place : `layer ${node.layer}, ${node.place}`];
  if (node.at) facts.push(`at token ${node.at}`);
  const active = node.active === "0" ? "inactive" : `active ${node.active}`;
  if (node.output) facts.push(`clean ${node.output} ${node.active}`);
  else if (node.active) facts.push(`${active} where it is read`);
  if (data.components.length > 1) facts.push(`Graph ${node.component}`);
  return [
    make("div", { class: "title" }, make("h2", {}, nameOf(node)), pinButton(node.id)),
    make("p", { text: facts.join(" · ") }),
    switchOf(node.id),
    ...(node.answer || []).map((text) => make("p", { text })),
    group ? make("p", {}, "in the group ", make("b", { text: visible(group.name) })) : null,
    ownWords(node.id),
    pagePanel(node),
    atlasLink(node),
    promptPanel(node),
    section(
      node.page && node.page.contexts ? "Most active on (from Neuronpedia)" : "Most active on",
      ...(node.contexts || []).map((context) => shaded(context.tokens, "context")),
    ),
    effectsPanel("Ablating it lowers (nats)", "lowers", node.lowers),
    effectsPanel("Ablating it raises (nats)", "raises", node.raises),
    findingsPanel(number),
    edgesPanel("Comes from", into[number], "s"),
    edgesPanel("Leads to", outOf[number], "t"),
    section("Where it comes from", node.written ? make("p", { text: `written by ${node.written}` }) : null,
      node.scrubbed ? make("p", { text: `erased by ${node.scrubbed}` }) : null),
  ];
}

function pinButton(id) {
  const pinned = isPinned(id);
  return make("button", {
    class: "pin",
    "aria-pressed": String(pinned),
    title: "keep in sight (p)",
    text: pinned ? "★ pinned" : "☆ pin",
    onclick: () => { togglePin(id); changed(); },
  });
}

// The reader's own label and note.
function ownWords(id) {
  const field = (tag, kind, placeholder) => {
    const input = make(tag, {
      "aria-label": `${placeholder} of ${id}`,
      placeholder,
      maxlength: String(kind === "labels" ? 80 : LONGEST),
      rows: tag === "textarea" ? "2" : null,
      oninput: () => {
        write(kind, id, input.value);
        edited();
        drawWords(numberOf.get(id));
        if (kind === "labels") panel.querySelector("h2").replaceChildren(nameOf(nodes[numberOf.get(id)]));
      },
      onchange: () => { drawNotes(); drawSearch(); },
    });
    input.value = state[kind][id] || "";
    return input;
  };
  return make("div", { class: "own" }, field("input", "labels", "label"), field("textarea", "notes", "note"));
}

function pagePanel(node) {
  if (!node.page && !node.url) return null;
  const page = node.page || { top: [], bottom: [] };
  const facts = [];
  if (page.density) facts.push(`active on ${page.density} of tokens`);
  if (page.most) facts.push(`at most ${page.most}`);
  const logits = (name, items) =>
    items.length ? make("p", { class: "logits" }, `${name} logits: `, items.slice(0, 8).map((item) => item.join(" ")).join("  ")) : null;
  return section(
    "Neuronpedia",
    page.words ? make("p", { class: page.known ? "means" : "faint", text: page.words }) : null,
    facts.length ? make("p", { text: facts.join(", ") }) : null,
    logits("top", page.top),
    logits("bottom", page.bottom),
    node.url ? make("p", {}, make("a", { href: node.url, target: "_blank", rel: "noreferrer", text: "its page ↗" }), " ", embedButton(node.url)) : null,
  );
}

// The feature in other prompts, where the page comes from a server that has an atlas.
function atlasLink(node) {
  if (!data.atlas || node.own) return null;
  const name = encodeURIComponent(node.id.split("@")[0]);
  return make("p", {}, make("a", { href: data.atlas + name, text: "in other prompts" }));
}

// Nothing is asked of the network before the reader asks for it.
function embedButton(url) {
  if (!url.startsWith(EMBEDS)) return null;
  const button = make("button", {
    class: "small",
    text: "show it here",
    onclick: () => button.replaceWith(make("iframe", {
      src: `${url}?embed=true`,
      title: "the feature's page on Neuronpedia",
      sandbox: "allow-scripts allow-same-origin allow-popups",
      referrerpolicy: "no-referrer",
    })),
  });
  return button;
}

// The prompt, and the activation at each token in numbers.
function promptPanel(node) {
  if (!node.prompt) return null;
  const cells = node.prompt.map(([, shade, value], place) => {
    const read = place === data.read ? " read" : "";
    return make(
      "span",
      { class: `cell${read}`, title: place === data.read ? "read here" : null },
      make("code", { class: shade ? `s${shade}` : "", text: data.tokens[place] }),
      make("small", { text: value || "·" }),
    );
  });
  return section("Activation at each token of the prompt", make("div", { class: "cells" }, ...cells));
}

function effectsPanel(title, name, effects) {
  if (!effects) return null;
  const rows = effects.map(([token, change, probability]) =>
    row(make("code", { class: name, text: token }), change, make("span", { class: "faint", text: `clean p ${probability}` })));
  return section(title, table(...rows));
}

function edgesPanel(title, list, end) {
  const rows = list
    .filter((number) => shown[number])
    .map((number) => {
      const edge = edges[number];
      const line = make("tr", {
        class: "edge-row",
        onmouseenter: () => light({ edge: number }),
        onmouseleave: () => light(selected()),
      });
      line.append(
        make("td", {}, link(edge[end])),
        make("td", {}, sign(edge)),
        make("td", { class: "number" }, make("button", { class: "link number", text: edge.said, title: "this arrow", onclick: () => select(`${nodes[edge.s].id}>${nodes[edge.t].id}`) })),
        make("td", { class: "faint", text: edge.through ? edge.through.split(", ").slice(0, 2).join(", ") : "" }),
      );
      return line;
    });
  const hidden = list.length - rows.length;
  return section(
    `${title} (${rows.length})`,
    rows.length ? table(...rows) : make("p", { class: "faint", text: "nothing in this graph" }),
    hidden ? make("p", { class: "faint", text: `${hidden} more are hidden by the filters` }) : null,
  );
}

// -- an arrow --------------------------------------------------------------------------------------

function edgePanel(number) {
  const edge = edges[number];
  const target = nodes[edge.t].output ? nodes[edge.t].output : "activation";
  const does = lowers(edge)
    ? `Ablating the source lowers the target's ${target} by ${edge.said.replace("−", "")}: the source promotes it.`
    : `Ablating the source raises the target's ${target} by ${edge.said.replace("+", "")}: the source suppresses it.`;
  const rows = (edge.parts || []).map(([name, said, value]) => {
    const most = Math.max(...edge.parts.map((part) => Math.abs(part[2])), 1e-12);
    const bar = make("div", { class: `bar ${value < 0 ? "lowers" : "raises"}`, style: `width:${(70 * Math.abs(value)) / most}px` });
    return row(name, make("span", { class: "number", text: said }), bar);
  });
  const carried = data.findings.flatMap((found) =>
    found.carried.filter(([s, t]) => s === edge.s && t === edge.t).map(([, , share]) =>
      make("p", { text: `${found.name}: ${share} of what the source does flows through this arrow` })));
  return [
    make("h2", {}, link(edge.s), make("span", { text: " → " }), link(edge.t)),
    make("p", { class: "effect" }, sign(edge), make("b", { class: lowers(edge) ? "lowers" : "raises", text: ` ${edge.said}` })),
    ...(edge.does || [does]).map((text) => make("p", { text })),
    section(
      "How it came about",
      edge.whole ? make("p", { class: "faint", text: `change of the pre-activation ${edge.whole}, by part` }) : null,
      rows.length ? table(...rows) : make("p", { class: "faint", text: "not measured; see the tables below the picture" }),
      edge.strongest ? make("p", { text: `strongest: ${edge.strongest}` }) : null,
    ),
    section("Path patching", ...carried),
  ];
}

// -- what was tested -------------------------------------------------------------------------------

const badge = (found) => make("span", { class: `badge${found.supported ? " supported" : ""}`, text: `${found.supported ? "✓ " : ""}${found.verdict}` });

function findingsPanel(number) {
  const about = data.findings.filter((found) => found.nodes.includes(number));
  return section("Tested by ablation", ...about.map((found) => {
    const share = found.needed[String(number)];
    const told = share ? ` · left in place it undoes ${share} of the change` : "";
    return make("p", {}, make("b", { text: `${found.name} ` }), badge(found), told);
  }));
}

function findingPanel(found) {
  const where = data.report
    ? make("a", { href: `${data.report}#${found.anchor}`, text: "in the report" })
    : null;
  return make(
    "details",
    {
      class: "finding",
      onmouseenter: () => light({ nodes: found.nodes, alone: true }),
      onmouseleave: () => light(selected()),
    },
    make("summary", {}, make("b", { text: `${found.name} ` }), badge(found)),
    make("p", { class: "faint" }, `${found.words} `, where),
  );
}

// -- the whole graph -------------------------------------------------------------------------------

function wholePanel() {
  const strength = (path) => (path.least ? `at least ${path.least} nats along each arrow` : `total |effect| ${path.total}`);
  const pathRows = data.paths.slice(0, 12).map((path) => {
    const chain = path.nodes.flatMap((number, place) => (place ? [" → ", link(number)] : [link(number)]));
    return make("div", {
      class: "path",
      onmouseenter: () => light({ nodes: path.nodes, alone: true }),
      onmouseleave: () => light(selected()),
    }, ...chain, make("span", { class: "faint", text: `  ${strength(path)}` }));
  });
  const note = make("textarea", {
    rows: "3",
    maxlength: String(LONGEST),
    placeholder: "note on the whole graph",
    "aria-label": "note on the whole graph",
    oninput: () => { state.note = note.value.trim() ? note.value : null; edited(); },
    onchange: drawNotes,
  });
  note.value = state.note || "";
  return [
    make("h2", { text: "The whole graph" }),
    make("p", { text: "Hover over a box to see what leads to it and what it leads to; click it for all that is known of it." }),
    whatIfPanel(),
    section("Tested by ablation", ...data.findings.map(findingPanel)),
    section("Strongest paths", ...pathRows),
    section("Your note", note),
  ];
}

function groupPanel(name) {
  const found = state.groups.find((each) => each.name === name);
  const members = found.features.map((id) => numberOf.get(id));
  const across = (list, end, other) =>
    [...new Set(members.flatMap((number) => list[number]))].filter((edge) => !members.includes(edges[edge][other]) && shown[edge]);
  return [
    make("h2", { text: visible(name) }),
    make("p", { text: "A group of yours. Its arrows are those of its features, each with its own effect." }),
    foldButton(found),
    section("Features", ...members.map((number) => make("p", {}, link(number)))),
    section("Comes from", ...across(into, "t", "s").map((edge) => arrowRow(edge))),
    section("Leads to", ...across(outOf, "s", "t").map((edge) => arrowRow(edge))),
  ];
}

function arrowRow(number) {
  const edge = edges[number];
  return make("p", {}, link(edge.s), " ", sign(edge), " ", link(edge.t), ` ${edge.said}`);
}

function foldButton(each) {
  return make("button", { class: "small", "data-key": `fold ${each.name}`, text: each.folded ? "unfold" : "fold", onclick: () => { each.folded = !each.folded; changed(); } });
}

// Pins and groups: below everything else, whatever is selected.
function yoursPanel() {
  const pins = state.pins.map((id) =>
    make("p", { class: "pinned-row" }, link(numberOf.get(id)), " ",
      make("button", { class: "small", "data-key": `unpin ${id}`, text: "unpin", onclick: () => { togglePin(id); changed(); } })));
  const name = make("input", { placeholder: "name of a group", maxlength: "80", "aria-label": "name of a group" });
  const told = make("p", { class: "faint", role: "status" });
  const loose = state.pins.filter((id) => !groupOf(state, id));
  const form = make("form", {
    class: "own",
    onsubmit: (event) => {
      event.preventDefault();
      const wrong = group(name.value, loose);
      told.textContent = wrong;
      if (!wrong) changed();
    },
  }, name, make("button", { class: "small", text: `group ${loose.length} pinned` }), told);
  const groups = state.groups.map((each) =>
    make("div", { class: "group-row" },
      make("button", { class: "link", text: visible(each.name), onclick: () => select(GROUP + each.name) }),
      ` ${each.features.length} `,
      foldButton(each),
      make("button", { class: "small", "data-key": `dissolve ${each.name}`, text: "dissolve", onclick: () => { state.groups = state.groups.filter((other) => other !== each); changed(); } }),
      make("div", {}, ...each.features.flatMap((id) => [link(numberOf.get(id)), " "]))));
  return [
    section("Pinned", ...(pins.length ? pins : [make("p", { class: "faint", text: "nothing yet: select a box and press p" })]), loose.length ? form : null),
    section("Groups", ...groups),
  ];
}

// A name for what has the focus, to find it again in a panel that was made anew.
const focusName = (element) =>
  element.dataset.key || element.getAttribute("aria-label") || `${element.className} ${element.textContent}`.replace(/[☆★].*/u, "");

function drawPanel() {
  const what = selected();
  let content = wholePanel;
  if (what && what.group !== undefined) content = () => groupPanel(what.group);
  else if (what && what.edge !== undefined) content = () => edgePanel(what.edge);
  else if (what) content = () => nodePanel(what.node);
  const old = panel.scrollTop;
  const same = panel.dataset.of === String(state.on);
  const had = panel.contains(document.activeElement) ? focusName(document.activeElement) : null;
  panel.dataset.of = String(state.on);
  panel.replaceChildren(...[result, ...content(), ...yoursPanel()].filter((each) => each !== null));
  panel.scrollTop = same ? old : 0;
  if (had === null) return;
  const again = [...panel.querySelectorAll("button, input, select, textarea")].find((each) => focusName(each) === had);
  (again || panel).focus({ preventScroll: true });
}
