"""The evidence on each phenomenon as tables: for the terminal, the model's README, the docs."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from statistics import median
from typing import Any, NamedTuple

from sae_graphs.text import visible
from sae_graphs.words import NONE, norm, points, probability
from training.demo.evaluation_table import markdown, rich_table
from training.demo.phenomena import prompts_of
from training.demo.phenomena_verdicts import FAILURES, Asked, Component, Pair, Trial, counts, pairs

SHORT = 30  # characters of a prompt, from its end, in the short table

CRITERIA = (
    "A component passes in a prompt where ablating it takes at least half of the right token's "
    "probability, with p < 0.01 against 200 matched controls (at most one of them changes it as "
    "much), whose median change is under a third of its own. It passes in a pair where it passes "
    "in the prompt whose graph it is of and in a second one with the same phenomenon: every other "
    "one of these prompts is tried."
)


class Tally(NamedTuple):
    """What became of one phenomenon: its prompts, and its ordered pairs."""

    phenomenon: str
    prompts: Sequence[Asked]
    pairs: Sequence[Pair]

    @property
    def passed(self) -> list[Asked]:
        """The prompts with a component that passes."""
        return [prompt for prompt in self.prompts if prompt.passing]

    @property
    def passed_pairs(self) -> list[Pair]:
        """The pairs that pass."""
        return [pair for pair in self.pairs if pair.passes]

    @property
    def norm(self) -> float | None:
        """The matched controls' norm over the component's: the median over prompts."""
        norms = [prompt.best.own.norm for prompt in self.prompts]
        found = [value for value in norms if value is not None]
        return median(found) if found else None

    @property
    def beat(self) -> int:
        """Prompts that pass with more than controls of equal norm do."""
        return sum(prompt.best.own.beats_equal_norm() for prompt in self.passed)

    @property
    def beat_in_both(self) -> int:
        """Pairs that pass with more than controls of equal norm do, in both prompts."""
        return sum(
            pair.component is not None
            and pair.trial is not None
            and pair.component.own.beats_equal_norm()
            and pair.trial.beats_equal_norm()
            for pair in self.passed_pairs
        )


def tallies(report: dict[str, Any]) -> list[Tally]:
    """One for each phenomenon."""
    found = []
    for part in report["phenomena"]:
        prompts = prompts_of(part)
        found.append(Tally(part["phenomenon"], prompts, tuple(pairs(prompts))))
    return found


# -- rows ------------------------------------------------------------------------------------------


def own_rows(found: Sequence[Tally]) -> list[list[str]]:
    """Header and one row per phenomenon: the components in the prompts that they were found in."""
    head = ["phenomenon", "prompts", "pass", *FAILURES, "controls' norm", "beat equal norms"]
    rows = [head]
    for tally in found:
        failed = counts([prompt.best.own for prompt in tally.prompts])
        sizes = [len(tally.prompts), len(tally.passed), *failed.values()]
        share = _norm(tally.norm)
        rows.append([tally.phenomenon, *map(str, sizes), share, str(tally.beat)])
    return rows


def pair_rows(found: Sequence[Tally]) -> list[list[str]]:
    """Header and one row per phenomenon: the same components in the other prompts."""
    rows = [["phenomenon", "pairs", "pass", "first fails", *FAILURES, "beat equal norms"]]
    for tally in found:
        trials = [pair.trial for pair in tally.pairs if pair.trial is not None]
        sizes = [len(tally.pairs), len(tally.passed_pairs), len(tally.pairs) - len(trials)]
        sizes += [*counts(trials).values(), tally.beat_in_both]
        rows.append([tally.phenomenon, *map(str, sizes)])
    return rows


def example_rows(found: Sequence[Tally]) -> list[list[str]]:
    """Header, and for each phenomenon the first pair that passes, a row for each prompt.

    Without such a pair the first prompt that passes stands alone, and without any its best.
    """
    rows = [
        [
            "phenomenon",
            "prompt and right token",
            "active",
            "before, after",
            "p",
            "controls' median",
            "controls' norm",
            "p, scaled",
            "p, random directions",
        ]
    ]
    for tally in found:
        first, component, second = _example(tally)
        rows.append([tally.phenomenon, _code(first), *_numbers(component, component.own)])
        if second is not None and second.trial is not None:
            rows.append(["", _code(second.second), *_numbers(component, second.trial)])
        else:
            rows.append(["", "no second prompt", *[NONE] * 7])
    return rows


def failing_rows(found: Sequence[Tally]) -> list[list[str]]:
    """Header and one row for every prompt in whose graph no component passes: its best one."""
    rows = [["phenomenon", "prompt and right token", "before, after", "p", "median", "fails"]]
    for tally in found:
        for prompt in tally.prompts:
            if not prompt.passing:
                trial = prompt.best.own
                _, change, p, middle, *_ = _numbers(prompt.best, trial)
                failed = ", ".join(trial.failures)
                rows.append([tally.phenomenon, _code(prompt), change, p, middle, failed])
    return rows


def summary_rows(found: Sequence[Tally]) -> list[list[str]]:
    """Header, and two rows per phenomenon: how many pass, and the example, short, by prompt."""
    rows = [
        ["phenomenon", "prompts", "pairs", "graph of, also in", "before, after", "p", "controls"]
    ]
    for tally in found:
        first, component, second = _example(tally)
        counted = [
            tally.phenomenon,
            f"{len(tally.passed)} of {len(tally.prompts)}",
            f"{len(tally.passed_pairs)} of {len(tally.pairs)}",
        ]
        rows.append([*counted, _code(first, SHORT), *_briefly(component.own)])
        if second is None or second.trial is None:
            rows.append(["", "", "", "no second prompt", *[NONE] * 3])
        else:
            rows.append(["", "", "", _code(second.second, SHORT), *_briefly(second.trial)])
    return rows


# -- pages -----------------------------------------------------------------------------------------


def print_tables(report: dict[str, Any]) -> None:
    """Prints what passes and what fails to the terminal."""
    from rich.console import Console

    found, console = tallies(report), Console()
    for title, rows in (
        ("In their own prompts", own_rows(found)),
        ("In pairs of prompts", pair_rows(found)),
    ):
        table = rich_table(title, rows)
        table.columns[0].no_wrap = True
        console.print(table)
    console.print(CRITERIA, style="dim")


HOW = (
    "`{command}` ({minutes:.0f} minutes on one thread; held-out cases of seed {seed}) takes, for "
    "each phenomenon, the first {cases} held-out prompts that can be asked and that the model "
    "answers with at least 0.5, makes each one's default graph, and ablates every component."
)
OWN = (
    '"Not halved" and the three columns after it count the prompts in whose graph no component '
    "passes, by what its best component fails; one may fail several. Controls' norm: what the "
    "matched controls take from the stream, as a share of what the component takes (median); they "
    "are weaker, as a component holds the strongest features of each layer, and there are no "
    "others like them. Beat equal norms: of the prompts that pass, those where the component also "
    "does more than all but at most one of 50 controls whose norm is scaled to its own, and of 50 "
    "random directions of that norm."
)
BOTH = (
    "First fails: no component passes in the first prompt, and none was tried in the second. The "
    "columns after it are about the second prompt. Beat equal norms: in both."
)
EXAMPLES = (
    "The first pair of each phenomenon that passes. Active: how many of the component's features "
    "are. Controls' median: in percentage points."
)
FAILED = "The prompts that fail, with the component that meets most criteria:"


def section(report: dict[str, Any]) -> str:
    """The part of the model's README about this."""
    found = tallies(report)
    parts = [
        "\n## Evidence",
        _filled(f"{_how(report)} {CRITERIA} Everything is in `phenomena.json`.", 100),
        markdown(own_rows(found)),
        _filled(OWN, 100),
        markdown(pair_rows(found)),
        _filled(BOTH, 100),
        _filled(EXAMPLES, 100),
        markdown(example_rows(found)),
        _filled(FAILED, 100),
        markdown(failing_rows(found)),
        _filled(f"Not asked, before as many were found: {_skipped(report)}.", 100),
    ]
    return "\n\n".join(parts) + "\n"


def summary(report: dict[str, Any]) -> str:
    """The part of docs/validation.md about this: a table, and what to know of it."""
    found = tallies(report)
    passed = sum(len(tally.passed) for tally in found)
    passed_pairs = sum(len(tally.passed_pairs) for tally in found)
    beat = sum(tally.beat for tally in found)
    both = sum(tally.beat_in_both for tally in found)
    norms = [tally.norm for tally in found if tally.norm is not None]
    spread = f"{norm(min(norms))} to {norm(max(norms))}" if norms else NONE
    below = (
        "*Prompts, pairs*: how many pass. The other columns are the first pair that passes; where "
        "none does, the first prompt that passes. *Before, after*: the right token's probability; "
        "*p*: against the matched controls. *Controls*: their median change in percentage points, "
        "and the norm of what they take from the stream, as a share of the component's. Every "
        "failure, and by what, is in `autoencoders/demo/README.md`."
    )
    meaning = (
        "What it means: the matched controls of a whole component are weaker than it (norm "
        f"{spread}, medians by phenomenon), as it holds the strongest features of each layer. "
        f"Against changes of equal norm less is left: of the {passed} prompts that pass, {beat} "
        "also do more than all but at most one of 50 controls scaled to the component's norm, and "
        f"of 50 random directions; of the {passed_pairs} pairs, {both} in both prompts."
    )
    missing = [tally.phenomenon for tally in found if not tally.passed_pairs]
    if missing:
        below += f" **No pair passes for {', '.join(missing)}.**"
    parts = [f"{_how(report)} {CRITERIA}", markdown(summary_rows(found)), below, meaning]
    return "\n\n".join(part if part.startswith("|") else _filled(part, 118) for part in parts)


# -- inside ----------------------------------------------------------------------------------------


def _example(tally: Tally) -> tuple[Asked, Component, Pair | None]:
    for pair in tally.passed_pairs:
        if pair.component is not None:
            return pair.first, pair.component, pair
    first = next(iter(tally.passed), tally.prompts[0])
    return first, first.best, None


def _numbers(component: Component, trial: Trial) -> list[str]:
    return [
        f"{trial.active} of {len(component.features)}",
        _change(trial),
        _p(trial.p),
        _points(trial.control_median),
        _norm(trial.norm),
        _p(trial.p_scaled),
        _p(trial.p_directions),
    ]


def _briefly(trial: Trial) -> list[str]:
    return [
        _change(trial),
        _p(trial.p),
        f"{_points(trial.control_median)}; {_norm(trial.norm)}",
    ]


def _change(trial: Trial) -> str:
    return f"{probability(trial.before)} → {probability(trial.after)}"


def _how(report: dict[str, Any]) -> str:
    facts = {name: report[name] for name in ("command", "seed", "cases")}
    return HOW.format(minutes=report["seconds"] / 60, **facts)


def _filled(text: str, width: int) -> str:
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def _p(value: float | None) -> str:
    """Three digits: p = 0.00995 is below 0.01."""
    return NONE if value is None else f"{value:.3g}"


def _points(change: float | None) -> str:
    return NONE if change is None else points(change).lstrip("+")


def _norm(share: float | None) -> str:
    return NONE if share is None else norm(share)


def _code(prompt: Asked, length: int | None = None) -> str:
    text = prompt.prompt
    if length is not None and len(text) > length:
        text = f"…{text[-length:]}"
    return f"{_quoted(text)} → {_quoted(prompt.token)}"


def _quoted(text: str) -> str:
    """As code on one line."""
    shown = visible(text, space=" ")
    return f"`` {shown} ``" if "`" in shown else f"`{shown}`"


def _skipped(report: dict[str, Any]) -> str:
    parts = [
        f"{part['phenomenon']} {number} ({reason})"
        for part in report["phenomena"]
        for reason, number in part["skipped"].items()
        if number
    ]
    return ", ".join(parts) or "none"
