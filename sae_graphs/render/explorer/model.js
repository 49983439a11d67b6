// The graph, what of it is shown, and what leads where. Effects are ablated minus clean: below 0
// the source promotes the target.

const data = JSON.parse(document.getElementById("graph-data").textContent);
const { nodes, edges } = data;
const numberOf = new Map(nodes.map((node, number) => [node.id, number]));

const into = nodes.map(() => []);
const outOf = nodes.map(() => []);
edges.forEach((edge, number) => {
  outOf[edge.s].push(number);
  into[edge.t].push(number);
});
const sizes = [...new Set(edges.map((edge) => Math.abs(edge.effect)))].sort((a, b) => a - b);
const largestRank = edges.reduce((most, edge) => Math.max(most, edge.rank), 1);

const signOf = (edge) => (edge.effect < 0 ? "promotes" : "suppresses");

// Which arrows the filters leave, as a list of booleans.
function shownEdges(state) {
  const kept = edges.map(
    (edge) =>
      Math.abs(edge.effect) >= state.least &&
      (state.top === null || edge.rank <= state.top) &&
      (state.sign === "both" || signOf(edge) === state.sign) &&
      (!state.component || nodes[edge.s].component === state.component),
  );
  return state.whole ? onLongPaths(kept, data.minPathEdges) : kept;
}

// Of the arrows kept, those on a path of at least so many.
function onLongPaths(kept, least) {
  const before = new Map();
  const after = new Map();
  const longest = (number, memory, next, end) => {
    if (!memory.has(number)) {
      const ways = next[number].filter((edge) => kept[edge]);
      const lengths = ways.map((edge) => 1 + longest(edges[edge][end], memory, next, end));
      memory.set(number, Math.max(0, ...lengths));
    }
    return memory.get(number);
  };
  return kept.map(
    (is, number) =>
      is &&
      longest(edges[number].s, before, into, "s") + 1 + longest(edges[number].t, after, outOf, "t") >=
        least,
  );
}

// Boxes and arrows that lead to some boxes, and that these lead to.
function reached(starts, shown) {
  const walk = (next, end) => {
    const boxes = new Set();
    const arrows = new Set();
    const rest = [...starts];
    while (rest.length) {
      for (const number of next[rest.pop()]) {
        if (!shown[number] || arrows.has(number)) continue;
        arrows.add(number);
        const there = edges[number][end];
        if (!boxes.has(there)) {
          boxes.add(there);
          rest.push(there);
        }
      }
    }
    return { boxes, arrows };
  };
  return { up: walk(into, "s"), down: walk(outOf, "t") };
}

// What a search looks through, in small letters, every shown space an ordinary one.
const haystacks = nodes.map((node) => {
  const tokens = [...(node.lowers || []), ...(node.raises || [])].map((item) => item[0]);
  for (const context of node.contexts || []) {
    tokens.push(...context.tokens.filter((item) => item[1] > 3).map((item) => item[0]));
  }
  return plainText([node.name, node.at || "", node.page ? node.page.words : "", ...tokens].join("\n"));
});

// Nothing that hides, or turns the text around it: as Python's `visible`, for what a reader writes.
function visible(text) {
  return text.replace(/[^\P{C}\n]|[\u2028\u2029]/gu, (sign) => `\\u${sign.codePointAt(0).toString(16).padStart(4, "0")}`);
}

const counted = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

function plainText(text) {
  return text.replaceAll("␣", " ").replaceAll("\u00a0", " ").toLowerCase();
}

// Numbers of the boxes that a query finds: by name or index, token, explanation, label, note, group.
function search(query, state) {
  const wanted = plainText(query);
  if (!wanted.trim()) return [];
  if (/^\d+$/.test(wanted)) {
    const byIndex = nodes.flatMap((node, number) => {
      const index = node.id.split("@")[0].split(".")[1];
      return index.startsWith(wanted) || node.id.startsWith(`${wanted}.`) ? [number] : [];
    });
    if (byIndex.length) return byIndex;
  }
  return nodes.flatMap((node, number) => {
    const group = groupOf(state, node.id);
    const own = [state.labels[node.id] || "", state.notes[node.id] || "", group ? group.name : ""];
    return `${haystacks[number]}\n${plainText(own.join("\n"))}`.includes(wanted) ? [number] : [];
  });
}

function groupOf(state, id) {
  return state.groups.find((group) => group.features.includes(id)) || null;
}
