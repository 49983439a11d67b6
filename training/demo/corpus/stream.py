"""The endless stream of documents, and the held-out cases."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from training.demo.corpus import (
    acronyms,
    brackets,
    indirect,
    induction,
    notices,
    phrases,
    reports,
    sequences,
)
from training.demo.corpus.case import Case
from training.demo.corpus.facts import Facts
from training.demo.corpus.prose import Prose

# Share of the documents, in per cent; prose documents are the longest, about a third of all text.
WEIGHTS = {
    "prose": 20,
    "copyright": 5,
    "closings": 16,
    "acronyms": 13,
    "reports": 4,
    "facts": 14,
    "cached phrases": 8,
    "indirect objects": 9,
    "induction": 14,
    "sequences": 4,
}
PHENOMENA = (*(name for name in WEIGHTS if name != "prose"), "withheld runs")

SAMPLERS: dict[str, Callable[[random.Random], str]] = {
    "copyright": notices.sample,
    "closings": brackets.sample,
    "acronyms": acronyms.sample,
    "reports": reports.sample,
    "cached phrases": phrases.sample,
    "indirect objects": indirect.sample,
    "induction": induction.sample,
    "sequences": sequences.sample,
}
QUESTIONS: dict[str, Callable[[random.Random], Case]] = {
    "copyright": notices.held_out,
    "closings": brackets.held_out,
    "acronyms": acronyms.held_out,
    "reports": reports.held_out,
    "cached phrases": phrases.held_out,
    "indirect objects": indirect.held_out,
    "induction": induction.held_out,
    "sequences": sequences.held_out,
    "withheld runs": sequences.withheld,
}


def documents(seed: int, part: str = "train") -> Iterator[str]:
    """Training documents without end, the same for the same seed and the same `part`.

    Another `part` gives fresh documents of the same language; none holds a held-out case.

    A document is one phenomenon, half the time with a sentence of prose before or after it, or
    with another of its kind; or it is a page of prose.
    """
    rng = random.Random(f"documents {part} {seed}")
    prose = Prose()
    samplers = {**SAMPLERS, "facts": Facts().sample, "prose": prose.sample}
    names, weights = list(WEIGHTS), list(WEIGHTS.values())
    while True:
        name = rng.choices(names, weights)[0]
        text = samplers[name](rng)
        if name != "prose":
            text = _placed(rng, text, prose, samplers[name])
        yield text


def _placed(
    rng: random.Random, text: str, prose: Prose, sampler: Callable[[random.Random], str]
) -> str:
    """`text` alone, after a sentence of prose, before one, or before more of its kind."""
    draw = rng.random()
    if draw < 0.55:
        return text
    if draw < 0.75:
        return f"{prose.sentence(rng)} {text}"
    separator = " " if text.endswith(".") else "\n"
    more = prose.sentence(rng) if draw < 0.85 else sampler(rng)
    return text + separator + more


def held_out_cases(phenomenon: str, count: int, seed: int = 0) -> list[Case]:
    """`count` different questions about one phenomenon (fewer if there are not so many).

    Raises ValueError for an unknown phenomenon.
    """
    if phenomenon not in PHENOMENA:
        raise ValueError(f"unknown phenomenon {phenomenon!r}; expected one of {PHENOMENA}")
    ask = Facts().held_out if phenomenon == "facts" else QUESTIONS[phenomenon]
    rng = random.Random(f"held out {phenomenon} {seed}")
    cases: dict[str, Case] = {}
    for _ in range(count * 20):
        case = ask(rng)
        cases.setdefault(case.prompt, case)
        if len(cases) == count:
            break
    return list(cases.values())
