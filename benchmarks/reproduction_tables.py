"""What was found beside what was published: tables, each with why it may differ and a verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from benchmarks import reproduction_reasons as reasons
from benchmarks import reproduction_verdicts as verdicts
from benchmarks.published import Published
from benchmarks.reproduction_case import VARIANTS
from benchmarks.reproduction_reasons import EXPECTED
from benchmarks.reproduction_verdicts import Verdict

Found = Mapping[str, Any]
Verdicts = list[tuple[str, Verdict]]  # by variant, or by what is asked


class Part(NamedTuple):
    """A table: raw cells, what is expected and why, its verdicts, and lines in place of rows."""

    title: str
    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    expected: str
    verdicts: Verdicts
    notes: tuple[str, ...] = ()

    def rich(self) -> Group:
        """For the terminal."""
        lines = [escape(f"{name}: {verdict}") for name, verdict in self.verdicts]
        said = (escape(self.expected), *(f"[bold]{line}[/bold]" for line in lines), "")
        notes = map(escape, self.notes)
        if not self.rows:
            return Group(f"[italic]{escape(self.title)}[/italic]: no rows", *notes, *said)
        table = Table(title=escape(self.title), title_justify="left", box=box.SIMPLE_HEAD)
        for number, head in enumerate(self.heads):
            table.add_column(head, justify="left" if number == 0 else "right", overflow="fold")
        for row in self.rows:
            table.add_row(*map(escape, row))
        return Group(table, *notes, *said)

    def markdown(self) -> str:
        """For a file."""
        lines = [self.heads, ("---", *("---:" for _ in self.heads[1:])), *self.rows]
        cells = ["| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines]
        said = [f"- **{_cell(name)}**: {_cell(str(verdict))}" for name, verdict in self.verdicts]
        body = "\n".join(cells) if self.rows else "No rows."
        body = "\n\n".join([body, *map(_cell, self.notes)])
        return f"## {_cell(self.title)}\n\n{body}\n\n{self.expected}\n\n" + "\n".join(said) + "\n"

    def to_json(self) -> dict[str, Any]:
        """The verdicts by name, and what is expected."""
        said = {name: verdict._asdict() for name, verdict in self.verdicts}
        return {"title": self.title, "expected": self.expected, "verdicts": said}


def parts(found: Found, published: Published) -> list[Part]:
    """All tables, the clean distribution first: without that, no other verdict means anything."""
    rest = [
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
    if not _is_the_models(found):
        rest = [
            part._replace(verdicts=[(name, verdicts.elsewhere(one)) for name, one in part.verdicts])
            for part in rest
        ]
    return [_clean(found), *rest]


def reproduces(found: Found) -> str:
    """The first line: whether the model answers as the published one did."""
    why = verdicts.of_clean(found[VARIANTS[1].name]["clean"]).why
    if _is_the_models(found):
        return f"reproduces the published clean distribution: yes ({why})"
    return (
        f"reproduces the published clean distribution: no ({why}), so nothing below says anything "
        "about the source"
    )


def _is_the_models(found: Found) -> bool:
    """Whether the clean distribution is the published one's, without BOS as there."""
    return verdicts.of_clean(found[VARIANTS[1].name]["clean"]).answer == "agrees"


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
        expected = reasons.of_ablation(figure, published)
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
    expected = reasons.of_zero([case for name in NAMES for case in found[name]["ablations"]])
    return Part("The source's controls", heads, rows, expected, said)


def _matched(found: Found) -> Part:
    rows, said = [], []
    refused: dict[str, Counter[str]] = {}  # why, and of what kinds
    for name in NAMES:
        for case in found[name]["ablations"]:
            if "nulls" not in case:
                continue
            change = case["after"] - case["before"]
            label = f"{case['figure']}, {name}"
            for null in case["nulls"]:
                if null["refused"] is not None:
                    refused.setdefault(null["refused"], Counter())[null["kind"]] += 1
                    continue
                norm = "" if null["norm"] is None else f"{null['norm']:.2f}"
                cells = (f"{change:+.1f}", f"{null['median']:.1f}", f"{null['p']:.2g}", norm)
                rows.append((label, null["kind"], *cells))
            said.append((label, _beaten(case)))
    heads = ("figure", "controls", "target, points", "controls' median", "p", "norm")
    notes = tuple(
        f"none ({', '.join(f'{kind} {n} of {len(said)}' for kind, n in kinds.items())}): {why}"
        for why, kinds in refused.items()
    )
    return Part("Matched controls", heads, rows, EXPECTED["matched"], said, notes)


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
    rows = []
    for name in NAMES:
        for one in found[name]["weighted"]:
            known = one["effect"] is not None
            cells = (f"{one['clean']:.3g}", f"{one['effect']:+.3g}") if known else ("", "")
            way = "up" if one["published"] > 0 else "down"
            rows.append((f"figure {one['figure']}, {name}", one["feature"], way, *cells))
        for edge in found[name]["weighted_edges"]:
            if edge["effect"] is not None:
                into = f"{edge['source']} -> {edge['target']}"
                rows.append((f"graph's prompt, {name}", into, "", "", f"{edge['effect']:+.3g}"))
    said = [(name, verdicts.of_weighted(found[name]["weighted"])) for name in NAMES]
    heads = ("figure", "feature, or edge", "published", "clean", "ours")
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
        counts = (str(one[part]) for part in ("graphs", "edges", "over", "touching"))
        cells = (*counts, f"{worst:.3f}")
        rows.append((name, *cells, ", ".join(one["named"]), ", ".join(one["path_nodes"])))
    over = f"of {published.graph['threshold']:g} or more"
    heads = ("", "graphs", "edges", over, "from layer 0", "worst FVU", "of the text")
    title = f"Graph of {published.graph['prompt']!r}"
    expected = EXPECTED["graph"].format_map(published.graph)
    return Part(title, (*heads, "of the paths"), rows, expected, said)


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
                for end in ENDS:
                    rows.append((f"{case['figure']}, {name}{ENDS[end]}", *_kept(case, end)))
        for end, words in ENDS.items():
            verdict = verdicts.of_keep_only(found[name]["ablations"], bare=bool(end))
            said.append((f"{name}{words}", verdict))
    heads = ("figure", "target", "active", "clean", "path kept", "none kept", "path, nats")
    expected = EXPECTED["keep_only"].format_map(published.negative)
    return Part("Keeping a path alone", (*heads, "none", "other sets"), rows, expected, said)


ENDS = {"": "", "_bare": ", bare"}


def _kept(case: Found, end: str) -> tuple[str, ...]:
    kept = case["keep_only"]
    others = kept[f"others{end}"]["nats"]
    return (
        repr(case["target"]),
        str(case["active"]),
        *(f"{kept[part]:.3g}" for part in ("clean", f"kept{end}", f"none{end}")),
        *(f"{kept['nats'][f'{part}{end}']:.2f}" for part in ("kept", "none")),
        f"{median(others):.2f}" if others else "",
    )


def _corpus(found: Found, published: Published) -> Part:
    rows, said = [], []
    for name in NAMES:
        for one in found[name]["corpus"]:
            counts = (str(one["snippets"]), str(one["active_in"]))
            cells = (_spread(one[part]) for part in ("signed", "controls", "excess"))
            rows.append((f"{one['figure']}, {name}", *counts, *cells))
        said.append((name, verdicts.of_corpus(found[name]["corpus"])))
    heads = ("figure", "snippets", "active in", "path, points", "controls", "difference")
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


def _spread(spread: Found) -> str:
    """A mean, and its 95 % interval."""
    if spread["mean"] is None:
        return ""
    within = "" if spread["low"] is None else f" ({spread['low']:+.2g} to {spread['high']:+.2g})"
    return f"{spread['mean']:+.2g}{within}"


def _values(values: Sequence[float] | None) -> str:
    return "" if values is None else " ".join(f"{value:.2f}" for value in values)


def _cell(text: str) -> str:
    """Nothing that would end the cell, or be taken for markup."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
