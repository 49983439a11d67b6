"""Acronyms spelled letter by letter after their expansion: `Foreign Direct Investment (FDI)`.

A case is named by its letters: letters that are held out never stand in brackets in training.
"""

from __future__ import annotations

import random

from training.demo.corpus.case import Case, is_held_out
from training.demo.corpus.words import CITIES, TITLE_WORDS, invented_word

ALWAYS_HELD_OUT = frozenset({"FDI"})
LINKS = ("of", "for", "and")
SUBJECT_LEADS = ("", "", "The ", "The ", "In those years the ", "In {city}, the ")
SUBJECT_TAILS = (
    " was founded in {city}.",
    " has changed a great deal since then.",
    " is based in {city}. The {acronym} has many members.",
    " met again last week. {acronym} rules are strict.",
    " is still growing. In {city}, {acronym} is well known.",
    " published its plan. Nobody at the {acronym} was surprised.",
    " is old. The letters {acronym} stand on its door.",
)
OBJECT_LEADS = (
    "A report by the ",
    "Members of the ",
    "She works at the ",
    "They wrote to the ",
    "Most of the money came from ",
    "We studied ",
    "An introduction to ",
    "He joined the ",
    "It was founded as the ",
    "Costs are paid by the ",
)
OBJECT_TAILS = (
    ".",
    ".",
    ", a small office in {city}.",
    ". {acronym} rules are strict.",
    ". In {city}, the {acronym} is well known.",
    ", which most people call {acronym}.",
)


def letters_held_out(letters: str) -> bool:
    """True when the acronym `letters` is kept out of training."""
    return letters in ALWAYS_HELD_OUT or is_held_out("acronym", letters)


def _expansion(rng: random.Random) -> tuple[str, str]:
    """A title of two to five words, and its letters."""
    count = rng.choices((2, 3, 4, 5), (15, 50, 25, 10))[0]
    words = [
        invented_word(rng, rng.randint(1, 2)).capitalize()
        if rng.random() < 0.2
        else rng.choice(TITLE_WORDS)
        for _ in range(count)
    ]
    letters = "".join(word[0] for word in words)
    title = " ".join(words)
    if count > 2 and rng.random() < 0.2:
        at = rng.randint(1, count - 1)
        title = " ".join([*words[:at], rng.choice(LINKS), *words[at:]])
    return title, letters


def _drawn(rng: random.Random, held_out_part: bool) -> tuple[str, str]:
    while True:
        title, letters = _expansion(rng)
        if letters_held_out(letters) == held_out_part:
            return title, letters


def _frame(rng: random.Random) -> tuple[str, str]:
    """What stands before and after an expansion with its acronym."""
    if rng.random() < 0.5:
        lead, tail = rng.choice(SUBJECT_LEADS), rng.choice(SUBJECT_TAILS)
    else:
        lead, tail = rng.choice(OBJECT_LEADS), rng.choice(OBJECT_TAILS)
    city = rng.choice(CITIES)
    return lead.replace("{city}", city), tail.replace("{city}", city)


def sample(rng: random.Random) -> str:
    """A sentence or two with an expansion, its acronym, and often the acronym again."""
    title, letters = _drawn(rng, held_out_part=False)
    lead, tail = _frame(rng)
    text = f"{lead}{title} ({letters})"
    if rng.random() < 0.3:
        other, more = _drawn(rng, held_out_part=False)
        text += f" and the {other} ({more})"
    return text + tail.format(acronym=letters)


def held_out(rng: random.Random) -> Case:
    """Asks for one letter (the second or later) of an acronym never seen, or for its `)`.

    Deciding: the initial of the word whose turn it is, thus the word's first token; for `)`, the
    bracket that opened.
    """
    title, letters = _drawn(rng, held_out_part=True)
    lead, _ = _frame(rng)
    at = rng.randint(1, len(letters))
    before, bracket = f"{lead}{title} ", len(lead) + len(title) + 1
    start = bracket if at == len(letters) else len(lead) + _initials(title)[at]
    return Case(
        "acronyms",
        f"{before}({letters[:at]}",
        letters[at:] + ")",
        f"({letters})",
        ((start, start + 1),),
    )


def _initials(title: str) -> list[int]:
    """Where the words begin that give the acronym its letters: all but a link, in small letters."""
    words = title.split(" ")
    starts = [sum(len(word) + 1 for word in words[:number]) for number in range(len(words))]
    return [start for start, word in zip(starts, words, strict=True) if word not in LINKS]
