"""What was found beside what was published: tables, each with why it may differ and a verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from benchmarks import reproduction_verdicts as verdicts
from benchmarks.published import Published
from benchmarks.reproduction_case import VARIANTS
from benchmarks.reproduction_verdicts import Verdict

Found = Mapping[str, Any]
Verdicts = list[tuple[str, Verdict]]  # by variant, or by what is asked

EXPECTED = {
    "clean": (
        "SAEs have no part in this. Expected to agree without BOS; with BOS before prompts that "
        "were published without one it must differ."
    ),
    "ablations": (
        "Expected to differ: the source's public code applied the SAEs one block late, with mixed "
        "signs of the bias, to a stream without centred weights and without BOS. Which features "
        "each figure's path has was not published, so those that any of the four paths has in the "
        "figure's layers are ablated together: more than the figure ablated."
    ),
    "zero": (
        "Feature 0 of each layer. Expected to differ: an inactive feature cannot change anything "
        "here, so the published changes must come from something else that the source's code did."
    ),
    "matched": (
        "Our own controls, which were not published: other active features, as many in each layer, "
        "that take about as much from the stream; the same scaled to the norm of the features "
        "ablated; and random directions of that norm."
    ),
    "sweep": (
        "Published: {published}. The coefficients were not published; ours run from -1 to 2 and "
        "from -10 to 20. Expected to agree in kind where both features are active."
    ),
    "weighted": "Published as strong, without numbers. Ours: activation, ablated minus clean.",
    "activations": (
        "The formula is the source's, evaluated in this benchmark alone: the raw model's stream, "
        "no b_dec, no BOS. It must agree if the weights are the source's. Ours are the SAEs' own "
        "activations at the right hook, with centred weights and b_dec, without BOS and with it: "
        "expected to differ, most of all at the first token."
    ),
    "promotes": (
        "Ours: the decoder's direction through the final norm and the unembedding. How the "
        "source ranked tokens was not published."
    ),
    "edges": (
        "Colours as in a picture in the source's repository, whose prompt is not known; ours in "
        "the graph's prompt, ablated minus clean."
    ),
    "graph": (
        "How the source chose its threshold differs from the strongest edges of each layer pair, "
        "which are kept here: expected to be alike at most."
    ),
    "keep_only": (
        "The target's probability in percent where all other features are ablated in the layers "
        "that the path spans; `bare` without the SAEs' errors, too. Published: {keep_only}."
    ),
    "corpus": (
        "Divergence in nats when a path is ablated in snippets of other text, beside one matched "
        "control a snippet. Published: {corpus}. Ours is of another corpus, unless --text names "
        "the source's."
    ),
}


class Part(NamedTuple):
    """A table: raw cells, what is expected and why, and its verdicts."""

    title: str
    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    expected: str
    verdicts: Verdicts

    def rich(self) -> Group:
        """For the terminal."""
        table = Table(title=escape(self.title), title_justify="left", box=box.SIMPLE_HEAD)
        for number, head in enumerate(self.heads):
            table.add_column(head, justify="left" if number == 0 else "right", overflow="fold")
        for row in self.rows:
            table.add_row(*map(escape, row))
        lines = [escape(f"{name}: {verdict}") for name, verdict in self.verdicts]
        return Group(table, escape(self.expected), *(f"[bold]{line}[/bold]" for line in lines), "")

    def markdown(self) -> str:
        """For a file."""
        lines = [self.heads, ("---", *("---:" for _ in self.heads[1:])), *self.rows]
        cells = ["| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines]
        said = [f"- **{_cell(name)}**: {_cell(str(verdict))}" for name, verdict in self.verdicts]
        body = "\n".join(cells)
        return f"## {_cell(self.title)}\n\n{body}\n\n{self.expected}\n\n" + "\n".join(said) + "\n"

    def to_json(self) -> dict[str, Any]:
        """The verdicts by name, and what is expected."""
        said = {name: verdict._asdict() for name, verdict in self.verdicts}
        return {"title": self.title, "expected": self.expected, "verdicts": said}


def parts(found: Found, published: Published) -> list[Part]:
    """All tables, the clean distribution first."""
    return [
        _clean(found),
        *_ablations(found, published),
        _zero(found),
        _matched(found),
        _sweep(found, published),
        _weighted(found),
        _activations(found),
        _promotes(found),
        _graph(found, published),
        _edges(found),
        _keep_only(found, published),
        _corpus(found, published),
    ]


def reproduces(found: Found) -> str:
    """The first line: whether the model answers as the published one did."""
    verdict = verdicts.of_clean(found[VARIANTS[1].name]["clean"])
    answer = "yes" if verdict.answer == "agrees" else "no"
    return f"reproduces the published clean distribution: {answer} ({verdict.why})"


# -- tables ----------------------------------------------------------------------------------------

NAMES = tuple(variant.name for variant in VARIANTS)


def _clean(found: Found) -> Part:
    rows = []
    for ours, bare in zip(*(found[name]["clean"] for name in NAMES), strict=True):
        rows += _beside(repr(ours["prompt"]), ours["rows"], bare["rows"])
    said = [(name, verdicts.of_clean(found[name]["clean"])) for name in NAMES]
    heads = ("prompt", "next token", "published %", *NAMES)
    return Part("Clean next tokens", heads, rows, EXPECTED["clean"], said)


def _ablations(found: Found, published: Published) -> list[Part]:
    made = []
    for number, figure in enumerate(published.figures):
        cases = [found[name]["ablations"][number] for name in NAMES]
        rows: list[tuple[str, ...]] = []
        if all("rows" in case for case in cases):
            ups = len(figure.up)
            rows += _beside("up", *(case["rows"][:ups] for case in cases))
            rows += _beside("down", *(case["rows"][ups:] for case in cases))
            for name, case in zip(NAMES, cases, strict=True):
                rows.append((f"{case['target']!r}", f"{name}, %", "", *_fall(name, case)))
        said = [(name, verdicts.of_ablation(case)) for name, case in zip(NAMES, cases, strict=True)]
        named = f"{len(cases[0]['features'])} of {cases[0]['wanted']} features ablated together"
        title = f"Figure {figure.name}: {figure.prompt!r}; {named}"
        heads = ("", "next token", "published, points", *NAMES)
        expected = EXPECTED["ablations"] if number == 0 else "Expected to differ, as above."
        made.append(Part(title, heads, rows, expected, said))
    return made


def _fall(name: str, case: Found) -> tuple[str, ...]:
    fall = f"{case['before']:.1f} -> {case['after']:.1f}"
    return tuple(fall if name == own else "" for own in NAMES)


def _zero(found: Found) -> Part:
    rows, said = [], []
    for name in NAMES:
        for case in found[name]["ablations"]:
            said.append((f"{case['figure']}, {name}", verdicts.of_zero(case)))
            if "zero" not in case:
                continue
            zero = case["zero"]
            for number, (token, published, ours) in enumerate(zero["rows"]):
                label = f"{case['figure']}, {name}" if number == 0 else ""
                rows.append((label, repr(token), _points(published), _points(ours)))
    heads = ("figure", "next token", "published, points", "ours")
    return Part("The source's controls", heads, rows, EXPECTED["zero"], said)


def _matched(found: Found) -> Part:
    rows, said = [], []
    for name in NAMES:
        for case in found[name]["ablations"]:
            if "nulls" not in case:
                continue
            change = case["after"] - case["before"]
            label = f"{case['figure']}, {name}"
            for null in case["nulls"]:
                cells = [null["kind"], f"{change:+.1f}", "", "", ""]
                if null["refused"] is None:
                    norm = "" if null["norm"] is None else f"{null['norm']:.2f}"
                    cells[2:] = [f"{null['median']:.1f}", f"{null['p']:.2g}", norm]
                else:
                    cells[2] = null["refused"]
                rows.append((label, *cells))
            said.append((label, _beaten(case)))
    heads = ("figure", "controls", "target, points", "controls' median", "p", "norm")
    return Part("Matched controls", heads, rows, EXPECTED["matched"], said)


def _beaten(case: Found) -> Verdict:
    """Nothing was published to compare with: how many kinds of controls the path beats."""
    asked = [null for null in case["nulls"] if null["p"] is not None]
    beaten = [null["kind"] for null in asked if null["p"] <= 0.05]
    words = f"beats {len(beaten)} of {len(asked)} kinds of controls at p <= 0.05"
    return Verdict("not comparable", f"none were published; the ablation {words}")


def _sweep(found: Found, published: Published) -> Part:
    rows = []
    curves = {name: found[name]["sweep"].get("curves") for name in NAMES}
    for name, both in curves.items():
        for curve in both or ():
            first, last = curve["coefficients"][0], curve["coefficients"][-1]
            linear = "" if curve["r_squared"] is None else f"{curve['r_squared']:.4f}"
            low, high = min(curve["responses"]), max(curve["responses"])
            jumps = verdicts.n_jumps(curve["responses"])
            cells = (linear, f"{curve['slope']:.3g}", f"{low:.3g} to {high:.3g}", str(jumps))
            rows.append((name, f"{first:g} to {last:g}", *cells, f"{curve['jump_at']:g}"))
    said = [(name, verdicts.of_sweep(found[name]["sweep"])) for name in NAMES]
    sweep = published.sweep
    title = f"{sweep['cause']} multiplied, {sweep['effect']} read: {sweep['prompt']!r}"
    heads = ("", "coefficients", "R2", "slope", "activation", "jumps", "largest at")
    return Part(title, heads, rows, EXPECTED["sweep"].format_map(sweep), said)


def _weighted(found: Found) -> Part:
    rows = [
        (
            f"figure {one['figure']}, {name}",
            one["feature"],
            "up" if one["published"] > 0 else "down",
            "" if one["effect"] is None else f"{one['effect']:+.3g}",
        )
        for name in NAMES
        for one in found[name]["weighted"]
    ]
    said = [(name, verdicts.of_weighted(found[name]["weighted"])) for name in NAMES]
    heads = ("figure", "feature", "published", "ours")
    return Part("Features that the text names", heads, rows, EXPECTED["weighted"], said)


def _activations(found: Found) -> Part:
    kinds = ("published", "formula", "formula_late", "ours", "ours_bos")
    rows = [
        (row["feature"], *(_values(row[kind]) for kind in kinds))
        for row in found["activations"]["rows"]
    ]
    heads = ("feature", "published", "formula", "a block late", "ours, no BOS", "ours")
    said = [("formula", verdicts.of_activations(found["activations"]))]
    return Part("Activations at each token", heads, rows, EXPECTED["activations"], said)


def _promotes(found: Found) -> Part:
    rows = []
    for one in found["promotes"]:
        ours = "" if one["ours"] is None else " ".join(map(repr, one["ours"]))
        rows.append((one["feature"], " ".join(map(repr, one["published"])), ours))
    said = [("tokens", verdicts.of_promotes(found["promotes"]))]
    heads = ("feature", "published", "ours")
    return Part("Tokens that features promote", heads, rows, EXPECTED["promotes"], said)


def _graph(found: Found, published: Published) -> Part:
    said, rows = [], []
    for name in NAMES:
        one = found[name]["graph"]
        said.append((name, verdicts.of_graph(one, published.graph)))
        worst = max(one["fvu"].values())
        cells = (str(one["graphs"]), str(one["edges"]), str(one["touching"]), f"{worst:.3f}")
        rows.append((name, *cells, ", ".join(one["named"]), ", ".join(one["path_nodes"])))
    heads = ("", "graphs", "edges", "from layer 0", "worst FVU", "of the text", "of the paths")
    title = f"Graph of {published.graph['prompt']!r}"
    return Part(title, heads, rows, EXPECTED["graph"], said)


def _edges(found: Found) -> Part:
    rows = []
    for ours, bare in zip(*(found[name]["edges"] for name in NAMES), strict=True):
        cells = ("" if one["effect"] is None else f"{one['effect']:+.3g}" for one in (ours, bare))
        rows.append((f"{ours['source']} -> {ours['target']}", ours["colour"], *cells))
    said = [(name, verdicts.of_edges(found[name]["edges"])) for name in NAMES]
    heads = ("edge", "published", *NAMES)
    return Part("Edges of a picture", heads, rows, EXPECTED["edges"], said)


def _keep_only(found: Found, published: Published) -> Part:
    rows, said = [], []
    for name in NAMES:
        for case in found[name]["ablations"]:
            if "keep_only" in case:
                kept = case["keep_only"]
                cells = (f"{kept[part]:.3g}" for part in ("clean", "kept", "none", "kept_bare"))
                rows.append((f"{case['figure']}, {name}", repr(case["target"]), *cells))
        said.append((name, verdicts.of_keep_only(found[name]["ablations"])))
    heads = ("figure", "target", "clean", "path kept", "none kept", "path kept, bare")
    expected = EXPECTED["keep_only"].format_map(published.negative)
    return Part("Keeping a path alone", heads, rows, expected, said)


def _corpus(found: Found, published: Published) -> Part:
    rows, said = [], []
    for name in NAMES:
        for one in found[name]["corpus"]:
            if one["mean"] is None:
                continue
            between = "" if one["low"] is None else f"{one['low']:.3g} to {one['high']:.3g}"
            controls = "" if one["controls"] is None else f"{one['controls']:.3g}"
            counts = (str(one["snippets"]), str(one["active_in"]))
            rows.append(
                (f"{one['figure']}, {name}", *counts, f"{one['mean']:.3g}", between, controls)
            )
        said.append((name, verdicts.of_corpus(found[name]["corpus"])))
    heads = ("figure", "snippets", "active in", "mean, nats", "95 %", "controls")
    expected = EXPECTED["corpus"].format_map(published.negative)
    return Part("Paths ablated in other text", heads, rows, expected, said)


# -- cells -----------------------------------------------------------------------------------------


def _beside(label: str, ours: Iterable[Any], bare: Iterable[Any]) -> list[tuple[str, ...]]:
    """Rows under one label: the token, what was published, and both variants."""
    rows = [
        (repr(token), _points(published), _points(one), _points(other))
        for (token, published, one), (_, _, other) in zip(ours, bare, strict=True)
    ]
    return [(label if number == 0 else "", *row) for number, row in enumerate(rows)]


def _points(value: float | None) -> str:
    return "no such token" if value is None else f"{value:.1f}"


def _values(values: Sequence[float] | None) -> str:
    return "" if values is None else " ".join(f"{value:.2f}" for value in values)


def _cell(text: str) -> str:
    """Nothing that would end the cell, or be taken for markup."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
