"""What was found of each phenomenon as tables: for the terminal, the model's README, the docs."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from statistics import mean, median
from typing import Any, NamedTuple

from sae_graphs.validation.judging import SIGNIFICANT
from sae_graphs.words import NONE
from training.demo.asked import CURVE, FEW, NODES, NULLS, RULES, Asked
from training.demo.evaluation_table import markdown, rich_table
from training.demo.null_models import NULL_MODELS, Nulled
from training.demo.phenomena import nulls_of, prompts_of

GOALS = (
    "Goals, set before: the strongest feature at a deciding token in 0.88 of the prompts whose "
    "deciding tokens are known, one of the first three in 0.97; the answer gone without the 4 "
    "strongest supporters in 0.95, without random sets in 0.05; the default graph necessary in "
    "0.80; a path that mediates in 0.60; at most a third of the features with an edge to the "
    "answer in 0.90."
)
RULE_WORDS = {
    "answer": "effect on the answer",
    "gradients": "gradients",
    "effect": "`--select effect`",
    "random": "random, same places",
}


class Found(NamedTuple):
    """One phenomenon and its prompts."""

    phenomenon: str
    prompts: Sequence[Asked]
    nulls: Sequence[Nulled] = ()


def found_in(report: dict[str, Any]) -> list[Found]:
    """One for each phenomenon."""
    return [
        Found(part["phenomenon"], prompts_of(part), nulls_of(part)) for part in report["phenomena"]
    ]


# -- rows ------------------------------------------------------------------------------------------


def hit_rows(
    found: Sequence[Found], others: Sequence[str] = ("gradients", "effect")
) -> list[list[str]]:
    """Header and one row per phenomenon: do the strongest stand where the answer is decided?

    By their effect on the answer, and by other rules.
    """
    head = ["phenomenon", "prompts", "first", "chance", "of three", "chance "]
    head += [f"{RULE_WORDS[rule]}: first, of three" for rule in others]
    rows = [head]
    for name, prompts, _ in _with_all(found, lambda prompt: bool(prompt.deciding)):
        row = [name, str(len(prompts))]
        row += [_share(p.by("answer").hit for p in prompts), _mean(p.chance for p in prompts)]
        row += [
            _share(p.by("answer").hit_of_three for p in prompts),
            _mean(p.chance_of_three for p in prompts),
        ]
        for rule in others:
            first = _share(p.by(rule).hit for p in prompts)
            row.append(f"{first}, {_share(p.by(rule).hit_of_three for p in prompts)}")
        rows.append(row)
    return rows


def necessity_rows(found: Sequence[Found], rules: Sequence[str] = RULES) -> list[list[str]]:
    """Header and one row per phenomenon and rule: what is left of the answer without them."""
    rows = [
        [
            "phenomenon",
            "by",
            f"gone without {FEW}",
            "controls",
            f"gone without {NODES}",
            "necessary",
            "beats matched, scaled, directions",
            "sufficient",
            f"left with {FEW}, {NODES} alone",
        ]
    ]
    for name, prompts, _ in _with_all(found):
        for rule in rules:
            ruled = [prompt.by(rule) for prompt in prompts]
            controls = [it.controls_below for it in ruled if it.controls_below is not None]
            rows.append(
                [
                    name if rule == rules[0] else "",
                    RULE_WORDS[rule],
                    _share(it.without_few < 0 for it in ruled),
                    _mean(controls),
                    _share(it.without < 0 for it in ruled),
                    _outcomes(it.necessary for it in ruled),
                    ", ".join(_share(_beats(it.p[at]) for it in ruled) for at in range(len(NULLS))),
                    _outcomes(it.sufficient for it in ruled),
                    ", ".join(_share(it.alone[at] > 0 for it in ruled) for at in (0, 1)),
                ]
            )
    return rows


def graph_rows(found: Sequence[Found]) -> list[list[str]]:
    """Header and one row per phenomenon: the default graphs, and their paths."""
    rows = [
        [
            "phenomenon",
            "edges",
            "relays",
            "a third or less at once",
            "stranded",
            "a path mediates",
            "and begins elsewhere",
            "a path supported",
            "lost",
            "left",
        ]
    ]
    for name, prompts, _ in _with_all(found):
        drawn = [prompt.drawn for prompt in prompts]
        rows.append(
            [
                name,
                f"{median(it.edges for it in drawn):g}",
                f"{median(it.relays for it in drawn):g}",
                _share(3 * it.at_once <= it.nodes for it in drawn),
                _mean(it.stranded for it in drawn),
                _share(it.mediating > 0 for it in drawn),
                _share(it.away > 0 for it in drawn),
                _share(it.supported > 0 for it in drawn),
                _middle(it.lost for it in drawn),
                _middle(it.left for it in drawn),
            ]
        )
    return rows


def curve_rows(found: Sequence[Found]) -> list[list[str]]:
    """Header and one row per phenomenon: how often the answer stays ahead with so many alone."""
    rows = [["phenomenon", *(f"{n} kept" for n in CURVE)]]
    for name, prompts, _ in _with_all(found):
        ruled = [prompt.by("answer") for prompt in prompts]
        rows.append([name, *(_share(it.alone[at] > 0 for it in ruled) for at in range(len(CURVE)))])
    return rows


def null_rows(found: Sequence[Found]) -> list[list[str]]:
    """Header and a row for each null model, beside the same prompts as they are."""
    rows = [
        [
            "",
            "prompts",
            "first",
            "chance",
            "of three",
            "chance ",
            f"gone without {FEW}",
            "necessary",
            "beats matched, scaled, directions",
            "lost",
            "random",
        ]
    ]
    nulls = [null for part in found for null in part.nulls]
    for which in NULL_MODELS:
        those = [null for null in nulls if null.which == which]
        if not those:
            continue
        ruled = [null.ruled for null in those]
        rows.append(
            [
                which,
                str(len(those)),
                _share(it.hit for it in ruled),
                _mean(null.chance for null in those),
                _share(it.hit_of_three for it in ruled),
                _mean(null.chance_of_three for null in those),
                _share(it.without_few < 0 for it in ruled),
                _outcomes(it.necessary for it in ruled),
                ", ".join(_share(_beats(it.p[at]) for it in ruled) for at in range(len(NULLS))),
                _middle(null.lost for null in those),
                _middle(null.random_lost for null in those),
            ]
        )
    return rows


# -- pages -----------------------------------------------------------------------------------------


def print_tables(report: dict[str, Any]) -> None:
    """Prints all tables to the terminal."""
    from rich.console import Console

    found, console = found_in(report), Console()
    for title, rows in (
        ("Where the strongest features stand", hit_rows(found)),
        ("Without them, and with them alone", necessity_rows(found)),
        ("The default graphs", graph_rows(found)),
        ("The answer stays ahead with so many of the strongest alone", curve_rows(found)),
        ("Where nothing should be found", null_rows(found)),
    ):
        table = rich_table(title, rows)
        table.columns[0].no_wrap = True
        console.print(table)
    console.print(GOALS, style="dim")


HOW = (
    "`{command}` ({minutes:.0f} minutes on one thread, the null models aside; held-out cases of "
    "seed {seed}) takes, for each phenomenon, the first {cases} held-out prompts whose answer the "
    "model ranks first with log-odds above 0. The corpus knows at which tokens each is decided: "
    "the first mention of the receiver; the word whose initial is asked, or the bracket; the "
    "fact's subject; what is to be closed; the earlier occurrence that follows the matched "
    "context; nowhere for cached phrases."
)
HITS = (
    "*First*: the strongest rarely-on feature away from the read token stands at a deciding token; "
    "*of three*: one of the three strongest does. *Chance*: for random tokens. Of `--select "
    "effect`, features stand where they are most active, and most of the strongest are not rarely "
    "on."
)
NECESSITY = (
    "*Gone*: the log-odds are below 0 without the 4, or the 16, strongest that speak for the "
    "answer; *controls*: in so many of 20 random sets of the same layers and tokens as the 4. "
    "*Necessary*, *sufficient*: validation's outcomes for the graph of the 16 strongest, yes of "
    "those that can be told; *beats*: p ≤ 0.05 beside each null alone. *Left*: the log-odds stay "
    "above 0 with the 4, or 16, alone of all rarely-on features."
)
GRAPHS = (
    "Medians of edges between features and of relays. *A third or less at once*: at most a third "
    "of the kept features have an edge to the answer. *Stranded*: kept features that lead nowhere. "
    "*A path mediates*: along one of the three top paths flows at least half of what its first "
    "feature does. *Lost*, *left*: the share of the score, of what is lost with all rarely-on "
    "features, that is lost without the kept ones, and left with them alone (medians)."
)


NULLS_TOLD = (
    "*Permuted decoders*: the features of each SAE have each other's decoder directions. "
    "*Scrambled prompts*: the tokens between the first and the last in another order; hits are "
    "counted where the deciding tokens have gone. Both of the first 12 prompts of each phenomenon "
    "whose deciding tokens are known. *Lost*, *random*: the share of the score, of what is lost "
    "with all rarely-on features, that is lost without the 16 strongest, and without as many "
    "others of the same layers and tokens (medians)."
)


def section(report: dict[str, Any]) -> str:
    """The part of the model's README about this."""
    found = found_in(report)
    parts = [
        "\n## What the answers hang on",
        _filled(f"{_how(report)} Everything is in `phenomena.json`.", 100),
        markdown(hit_rows(found)),
        _filled(HITS, 100),
        markdown(necessity_rows(found)),
        _filled(NECESSITY, 100),
        markdown(graph_rows(found)),
        _filled(GRAPHS, 100),
        markdown(curve_rows(found)),
        markdown(null_rows(found)),
        _filled(NULLS_TOLD, 100),
        _filled(f"{GOALS} Not asked, before as many were found: {_skipped(report)}.", 100),
    ]
    return "\n\n".join(parts) + "\n"


def summary(report: dict[str, Any]) -> str:
    """The part of docs/validation.md about this."""
    found = found_in(report)
    own = [row for row in necessity_rows(found) if row[1] in ("by", RULE_WORDS["answer"])]
    parts = [
        _how(report),
        markdown(hit_rows(found)),
        HITS,
        markdown([row[:1] + row[2:] for row in own]),
        NECESSITY,
        markdown(graph_rows(found)),
        GRAPHS,
        markdown(null_rows(found)),
        NULLS_TOLD,
        f"{GOALS} Every rule, and every prompt, is in `autoencoders/demo/`.",
    ]
    return "\n\n".join(part if part.startswith("|") else _filled(part, 118) for part in parts)


# -- inside ----------------------------------------------------------------------------------------


def _with_all(
    found: Sequence[Found], asked: Callable[[Asked], bool] = lambda prompt: True
) -> list[Found]:
    """Those that have such prompts, with these alone, and at the end all of them together."""
    parts = [Found(each.phenomenon, [p for p in each.prompts if asked(p)]) for each in found]
    parts = [part for part in parts if part.prompts]
    everything = [prompt for part in parts for prompt in part.prompts]
    return [*parts, Found("all", everything)] if everything else []


def _share(outcomes: Iterable[bool | None]) -> str:
    known = [outcome for outcome in outcomes if outcome is not None]
    return f"{mean(known):.2f}" if known else NONE


def _beats(p: float | None) -> bool | None:
    """Whether a null is beaten, taken alone; None where it could not be drawn."""
    return None if p is None else p <= SIGNIFICANT


def _outcomes(outcomes: Iterable[bool | None]) -> str:
    """`12 of 15`: how many are true of those that can be told."""
    known = [outcome for outcome in outcomes if outcome is not None]
    return f"{sum(known)} of {len(known)}"


def _mean(values: Iterable[float]) -> str:
    known = list(values)
    return f"{mean(known):.2f}" if known else NONE


def _middle(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{median(known):.2f}" if known else NONE


def _how(report: dict[str, Any]) -> str:
    facts = {name: report[name] for name in ("command", "seed", "cases")}
    return HOW.format(minutes=report["seconds"] / 60, **facts)


def _filled(text: str, width: int) -> str:
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def _skipped(report: dict[str, Any]) -> str:
    parts = [
        f"{part['phenomenon']} {number} ({reason})"
        for part in report["phenomena"]
        for reason, number in part["skipped"].items()
        if number
    ]
    return ", ".join(parts) or "none"
