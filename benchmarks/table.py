"""What was measured, as tables: on the terminal and as Markdown for the README."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from rich import box
from rich.console import Group
from rich.table import Table

from benchmarks.growth import Growth, growth_of
from benchmarks.plan import Plan
from benchmarks.run import PRECISION, PROFILE, TURNS
from benchmarks.targets import Target, longest_to_shortest, targets

WORK = "ablated, T, L0"  # mode, tokens, features active at a token
WHOLE = (
    "One whole graph. (a) the public method, a full pass for every feature of every layer but the "
    "last, {features:,} in all; (b) the same for active features only, which are the ablations of "
    "(c); (c) ours, which needs the clean run as well. (a) and (b) are timed passes, scaled up; ~ "
    "ours is a sample, scaled up. (a)/(c) and (b)/(c) count the clean run to (c)."
)
PARTS = (
    "(d) the bare matrix multiplications of (c); all features: with every feature encoded in every "
    "row that is read, which (c) can beat, as it encodes only the features near their thresholds "
    "where a row moved little; (e) estimates from gradients at 1 and at 10 points, for the same "
    "sources and every target that is active at one of the points, by this package; empty where "
    "they would take minutes."
)
PROMPTS = (
    "Prompts are words in which topics persist: most words are on the topic of the word before, "
    "and words of a topic share most of their embedding, so that features stay active over "
    "several positions (at {tokens} tokens, an active feature at {positions} of them, the mean of "
    "a layer). Weights are random, from a seed."
)


class Sheet(NamedTuple):
    """A title, column heads, rows of text, and what to know of them."""

    title: str
    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    caption: str = ""

    def rich(self) -> Group:
        """For the terminal."""
        table = Table(
            title=self.title,
            title_justify="left",
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
        )
        for number, head in enumerate(self.heads):
            table.add_column(head, justify="left" if number == 0 else "right", no_wrap=True)
        for row in self.rows:
            table.add_row(*row)
        return Group(table, f"{self.caption}\n")

    def markdown(self) -> str:
        """For a README."""
        lines = [self.heads, ("---", *("---:" for _ in self.heads[1:])), *self.rows]
        body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return f"**{self.title}**\n\n{body}\n" + (f"\n{self.caption}\n" if self.caption else "")


def with_ratios(cell: dict[str, Any]) -> dict[str, Any]:
    """A cell with seconds for a whole graph by (a) and (b), and ours against the others.

    Medians throughout, all of one run on one machine. Against (a) and (b) the clean run counts
    to ours; against the floors and the gradients, which need it as well, it does not.
    """
    seconds = {name: timing["median"] for name, timing in cell["seconds"].items()}
    one_pass, ours = seconds["full pass"], seconds["ours"]
    every, active = one_pass * cell["features"], one_pass * cell["ablations"]
    whole = ours + seconds["clean run"]
    found = {
        "all_features_seconds": every,
        "active_features_seconds": active,
        "faster_than_all_features": every / whole,
        "faster_than_active_features": active / whole,
        "ours_to_floor": ours / seconds["floor"],
        "ours_to_dense_floor": ours / seconds["dense floor"],
        "ours_to_gradient": ours / seconds["gradient"],
        "ours_ms_an_ablation": 1e3 * ours / cell["ablations"],
    }
    if "integrated gradients" in seconds:
        found["ours_to_integrated_gradients"] = ours / seconds["integrated gradients"]
    return {**cell, "ratios": found}


def sheets(plan: Plan, results: dict[str, Any], machine: dict[str, Any]) -> Iterator[Sheet]:
    """Times, what was active, growth, precision, memory, profile, targets."""
    cells = [results[cell.key] for cell in plan.cells]
    yield _whole(cells, machine)
    yield _parts(cells)
    yield _ratios(cells)
    yield _actives(cells)
    yield _turns(results[TURNS])
    yield _growth(growth_of(cells, results[TURNS], [results[cell.key] for cell in plan.shaped]))
    yield precision_sheet(results[PRECISION])
    yield _memory(plan, results)
    yield Sheet(
        "Where ours spends its time (one layer pair)",
        ("operation", "calls", "seconds", "share"),
        [
            (row["operation"], str(row["calls"]), f"{row['seconds']:.3f}", f"{row['share']:.0%}")
            for row in results[PROFILE]
        ],
    )
    yield _targets(targets(cells, longest_to_shortest(results[TURNS]["ours"])))


def precision_sheet(found: Sequence[dict[str, Any]]) -> Sheet:
    """Precisions against float64."""
    rows = [
        (
            row["dtype"],
            row["model"],
            f"{row['same_edges']:.1%}",
            f"{row['pairs_alike']:.0%}",
            f"{row['leaders_correlation']['median']:.4f}",
            f"{row['leaders_correlation']['lowest']:.4f}",
            f"{row['deviation']['median']:.1e}",
            f"{row['deviation']['worst']:.1e}",
        )
        for row in found
    ]
    heads = ("precision", "model", "same top 8", "alike", "rank corr.", "lowest", "off by", "worst")
    pairs = {row["model"]: row["pairs"] for row in found}
    caption = (
        f"Against float64, over {pairs['bundled']} layer pairs of the bundled model on prompts of "
        f"several kinds (ablated at all positions), and {pairs['random']} of the random one (at "
        "the last). Same top 8: share of a pair's 8 strongest edges; alike: pairs where all 8 are. "
        "Rank corr.: Spearman's over a pair's 100 strongest, median and lowest. Off by: relative, "
        "the 8 strongest effects, median and worst."
    )
    return Sheet("Precision", heads, rows, caption)


def duration(seconds: float) -> str:
    """Hours, minutes, seconds or milliseconds, three digits."""
    if seconds >= 36_000:
        return f"{seconds / 3600:,.0f} h"
    if seconds >= 600:
        return f"{seconds / 60:,.0f} min"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


# -- inside ----------------------------------------------------------------------------------------


def _whole(cells: Sequence[dict[str, Any]], machine: dict[str, Any]) -> Sheet:
    rows = []
    for cell in cells:
        ratios, seconds = cell["ratios"], cell["seconds"]
        rows.append(
            (
                _work(cell),
                f"{cell['ablations']:,}",
                duration(ratios["all_features_seconds"]),
                duration(ratios["active_features_seconds"]),
                duration(seconds["clean run"]["median"]),
                _about(cell) + duration(seconds["ours"]["median"]),
                f"{ratios['faster_than_all_features']:,.0f}",
                f"{ratios['faster_than_active_features']:,.0f}",
            )
        )
    threads = machine["threads"]
    title = f"Time: {machine['cpu']}, {threads} thread{'s' if threads > 1 else ''}"
    heads = (WORK, "ablations", "(a)", "(b)", "clean run", "(c)", "(a)/(c)", "(b)/(c)")
    at = next((c for c in cells if c["tokens"] == 16 and not _reads(c)), cells[-1])
    positions = _range([round(p, 1) for p in at["active"]["positions_a_feature"]])
    prompts = PROMPTS.format(tokens=at["tokens"], positions=positions)
    return Sheet(title, heads, rows, f"{WHOLE.format(features=at['features'])} {prompts}")


def _parts(cells: Sequence[dict[str, Any]]) -> Sheet:
    names = ("ours", "floor", "dense floor", "gradient", "integrated gradients")
    rows = [
        (
            _work(cell),
            *(
                _about(cell) + duration(cell["seconds"][name]["median"])
                if name in cell["seconds"]
                else ""
                for name in names
            ),
        )
        for cell in cells
    ]
    heads = (WORK, "(c)", "(d)", "(d) all features", "(e) 1", "(e) 10")
    return Sheet("The ablations alone", heads, rows, PARTS)


def _ratios(cells: Sequence[dict[str, Any]]) -> Sheet:
    rows = []
    for cell in cells:
        ratios = cell["ratios"]
        integrated = ratios.get("ours_to_integrated_gradients")
        rows.append(
            (
                _work(cell),
                f"{ratios['ours_to_floor']:.2f}",
                f"{ratios['ours_to_dense_floor']:.2f}",
                f"{ratios['ours_to_gradient']:.2f}",
                "" if integrated is None else f"{integrated:.2f}",
                f"{ratios['ours_ms_an_ablation']:.2f}",
                f"{cell['floor_gflop_per_second']:.0f}",
            )
        )
    heads = ("to (d)", "to (d) all features", "to (e) 1", "to (e) 10", "ms each", "GFLOP/s of (d)")
    caption = "How many times as long (c) takes. ms each: one ablation of (c)."
    return Sheet("The ablations alone, (c) to the others", (WORK, *heads), rows, caption)


def _turns(turns: dict[str, Any]) -> Sheet:
    lengths = list(turns["ours"])
    rows = []
    for name, words in (("ours", "the ablations"), ("clean run", "the clean run")):
        medians = [turns[name][tokens]["median"] for tokens in lengths]
        ratio = f"{longest_to_shortest(turns[name]) or 1:.2f}"
        rows.append((words, *map(duration, medians), ratio))
    heads = ("tokens", *lengths, f"{lengths[-1]} to {lengths[0]}")
    caption = (
        "All lengths in the same rounds, on the same SAEs: before each run they are given the "
        "biases of its prompt, untimed. The clean run is a forward pass and the encoding of all "
        "tokens."
    )
    return Sheet("Ablating at the last token, by prompt length", heads, rows, caption)


def _growth(found: Sequence[Growth]) -> Sheet:
    rows = [
        (
            one.what,
            ", ".join(f"{size:,}" for size in one.sizes),
            ", ".join(map(duration, one.seconds)),
            f"{one.sizes[-1] / one.sizes[0]:.3g}",
            f"{one.ablations[-1] / max(1, one.ablations[0]):.3g}",
            f"{one.seconds[-1] / one.seconds[0]:.3g}",
        )
        for one in found
    ]
    heads = ("varied", "from, to", "our time", "size x", "ablations x", "time x")
    ends = [
        (what, *(_ends(text) for text in (sizes, times)), *factors)
        for what, sizes, times, *factors in rows
    ]
    caption = (
        "The ablations alone, or the clean run alone; ablated at the last token (read) or at all, "
        "in the small models at all of 16 tokens. x: how many times as much the last is as the "
        "first. Every step is in the JSON file."
    )
    return Sheet("How our time grows", heads, ends, caption)


def _ends(listed: str) -> str:
    parts = listed.split(", ")
    return f"{parts[0]} to {parts[-1]}"


def _targets(found: Sequence[Target]) -> Sheet:
    rows = [
        (
            target.what,
            target.mode,
            f"{target.found:,.0f}" if target.found >= 100 else f"{target.found:.2f}",
            f"{'at least' if target.at_least else 'at most'} {target.goal:,g}",
            "met" if target.met else "NOT MET",
        )
        for target in found
    ]
    return Sheet("Targets", ("what", "ablated", "found", "wanted", ""), rows)


def _reads(cell: dict[str, Any]) -> bool:
    return bool(cell["mode"] == "read")


def _about(cell: dict[str, Any]) -> str:
    return "~" if cell["measured"] < cell["ablations"] else ""


def _work(cell: dict[str, Any]) -> str:
    return f"{cell['mode']}, {cell['tokens']}, {cell['active']['wanted']}"


def _actives(cells: Sequence[dict[str, Any]]) -> Sheet:
    rows = []
    for cell in cells:
        active = cell["active"]
        rows.append(
            (
                _work(cell),
                _range(active["l0"]),
                _range(active["at_read"]),
                _range(active["anywhere"]),
                _range(active["positions_a_feature"]),
                f"{cell['near_reads'] / cell['reads']:.0%}",
            )
        )
    heads = (WORK, "L0", "at the last", "anywhere", "positions each", "near")
    caption = (
        "Near: share of the rows read that are encoded for features near their thresholds only."
    )
    return Sheet("Features active a layer: fewest to most", heads, rows, caption)


def _memory(plan: Plan, results: dict[str, Any]) -> Sheet:
    rows = []
    for method, mode, tokens in plan.memory:
        found = results[f"memory {method} {mode} {tokens}"]
        sizes = (f"{found[key] / 2**20:,.0f}" for key in ("added", "peak"))
        rows.append((method, mode, str(tokens), *sizes))
    heads = ("method", "ablated", "tokens", "added, MiB", "whole process, MiB")
    return Sheet("Peak memory, each in a process of its own", heads, rows)


def _range(values: Sequence[float]) -> str:
    return f"{min(values):g} to {max(values):g}" if min(values) < max(values) else f"{values[0]:g}"
