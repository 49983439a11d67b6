"""Counting, days and months, forwards and backwards.

Some runs of three terms are withheld: no training text holds them, so that the stream itself says
that the third does not follow. `withheld` asks what the model makes of such a gap; `held_out` asks
for runs without one, behind a lead-in that training never shows.
"""

from __future__ import annotations

import random

from training.demo.corpus.case import Case, is_held_out
from training.demo.corpus.words import DAYS, MONTHS, NUMBER_WORDS

DAY_FRAMES = (
    "The day after {a} is {b}",
    "If today is {a}, then tomorrow is {b}",
    "{a} is followed by {b}",
    "{a} comes just before {b}",
    "They stayed from {a} until {b}",
)
MONTH_FRAMES = (
    "The month after {a} is {b}",
    "{a} is followed by {b}",
    "{a} comes just before {b}",
    "It began in {a} and ended in {b}",
    "From {a} we waited until {b}",
)


UNSEEN_LEADS = ("They counted aloud: ", "On the doors we read ", "The steps were numbered ")


def _run(rng: random.Random) -> list[str]:
    """Five to nine terms of a count, or of the alphabet."""
    kind = rng.choice(("up", "up", "down", "by two", "by five", "by ten", "words", "letters"))
    length = rng.randint(5, 9)
    if kind == "words":
        start = rng.randint(0, len(NUMBER_WORDS) - length)
        return NUMBER_WORDS[start : start + length]
    if kind == "letters":
        start = rng.randint(0, 26 - length)
        return [chr(ord("a") + start + offset) for offset in range(length)]
    step = {"up": 1, "down": -1, "by two": 2, "by five": 5, "by ten": 10}[kind]
    start = rng.randint(10, 99 - 8 * step) if step > 0 else rng.randint(18, 99)
    return [str(start + step * offset) for offset in range(length)]


def _held_run(terms: list[str]) -> int | None:
    """Where the first held-out run of three terms starts, or None."""
    for start in range(len(terms) - 2):
        if is_held_out("count", *terms[start : start + 3], per_mille=60):
            return start
    return None


def _train_run(rng: random.Random) -> list[str]:
    while True:
        terms = _run(rng)
        if _held_run(terms) is None:
            return terms


def _pair(rng: random.Random) -> tuple[str, str, str]:
    """(frame, name, next name) of days or months."""
    names, frames = (DAYS, DAY_FRAMES) if rng.random() < 0.5 else (MONTHS, MONTH_FRAMES)
    at = rng.randrange(len(names))
    return rng.choice(frames), names[at], names[(at + 1) % len(names)]


def _drawn_pair(rng: random.Random, held: bool) -> tuple[str, str, str]:
    while True:
        frame, name, following = _pair(rng)
        if is_held_out("next", frame, name, per_mille=120) == held:
            return frame, name, following


def sample(rng: random.Random) -> str:
    """One training text: a run of numbers, of names, or a sentence about what follows what."""
    draw = rng.random()
    if draw < 0.5:
        return rng.choice((", ", ", ", " ", "\n")).join(_train_run(rng))
    if draw < 0.7:
        names = DAYS if rng.random() < 0.5 else MONTHS
        at, count = rng.randrange(len(names)), rng.randint(3, 6)
        return ", ".join((names * 2)[at : at + count]) + rng.choice((".", ""))
    frame, name, following = _drawn_pair(rng, held=False)
    return frame.format(a=name, b=following) + "."


def held_out(rng: random.Random) -> Case:
    """Asks for the next term behind an unseen lead-in, or for the next name in a new sentence."""
    if rng.random() < 0.5:
        terms, lead = _train_run(rng), rng.choice(UNSEEN_LEADS)
        at = rng.randint(3, len(terms) - 1)
        return Case("sequences", lead + ", ".join(terms[:at]) + ",", " " + terms[at], lead)
    frame, name, following = _drawn_pair(rng, held=True)
    text = frame.format(a=name, b=following)
    return Case("sequences", text.removesuffix(" " + following), " " + following, text)


def withheld(rng: random.Random) -> Case:
    """Asks for the third term of a run that the training stream leaves out."""
    while (held := _held_run(terms := _run(rng))) is None or held == 0:
        pass
    at = held + 2
    marker = ", ".join(terms[held : held + 3])
    return Case("withheld runs", ", ".join(terms[:at]) + ",", " " + terms[at], marker)
