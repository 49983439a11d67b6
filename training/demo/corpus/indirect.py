"""Indirect objects: `When Mary and John went to the store, John gave a drink to` -> Mary."""

from __future__ import annotations

import random

from training.demo.corpus.case import Case, is_held_out
from training.demo.corpus.templates import filled
from training.demo.corpus.words import MEN, WOMEN, article, listed

NAMES = WOMEN + MEN
PLACES = listed(
    "store park market school station library garden harbour kitchen office beach museum"
)
OBJECTS = listed("drink book letter ring basket ticket flower map coat key lamp apple egg orange")
VERBS = listed("gave handed passed offered lent sold showed brought")
SETTINGS = (
    "When {a} and {b} went to the {place}, ",
    "After {a} and {b} went to the {place}, ",
    "While {a} and {b} were at the {place}, ",
    "When {a} and {b} met at the {place}, ",
    "{a} and {b} were working at the {place}. ",
    "Then {a} and {b} had a long talk at the {place}. ",
    "One day {a} met {b} at the {place}, and ",
    "Because {a} and {b} were late for the {place}, ",
)


def _pair_held(first: str, second: str) -> bool:
    low, high = sorted((first, second))
    return (low, high) == ("John", "Mary") or is_held_out("pair", low, high)


def _scene(rng: random.Random, held: bool) -> tuple[str, str, str, tuple[int, int]]:
    """(text up to `to`, the receiver, the setting sentence, where that names the receiver)."""
    while True:
        a, b = rng.sample(NAMES, 2)
        if _pair_held(a, b) == held:
            break
    giver, receiver = (a, b) if rng.random() < 0.5 else (b, a)
    thing = rng.choice(OBJECTS)
    setting, places = filled(rng.choice(SETTINGS), a=a, b=b, place=rng.choice(PLACES))
    adverb = rng.choice(("", "", "", "soon ", "quietly ", "then ", "at last "))
    act = f"{giver} {adverb}{rng.choice(VERBS)} {article(thing)} {thing} to"
    return setting + act, receiver, setting, places["a" if receiver == a else "b"]


def sample(rng: random.Random) -> str:
    """One training scene; the pair of names is never a held-out pair."""
    text, receiver, _, _ = _scene(rng, held=False)
    return f"{text} {receiver}."


def held_out(rng: random.Random) -> Case:
    """Asks who receives, for a pair of names that training never brings together.

    Deciding: the receiver's first mention. There is one in the setting, and it comes first.
    """
    text, receiver, setting, named = _scene(rng, held=True)
    return Case("indirect objects", text, f" {receiver}.", setting, (named,))
