"""Induction: a random string occurs twice; the second time its rest is certain."""

from __future__ import annotations

import random

from training.demo.corpus.case import Case, is_held_out
from training.demo.corpus.words import invented_word

FRAMES = (
    ("The password is ", ". Please repeat it: ", "."),
    ("Order ", " has been sent. Keep the number ", "."),
    ("", " | ", " |"),
    ("Your code: ", "\nEnter the code: ", "\n"),
    ("They sang ", ", and again ", "."),
    ("Ticket ", " was lost; ticket ", " was found."),
    ("", "\n", "\n"),
    ("She wrote ", " on the wall, and we read ", "."),
)
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def _pieces(rng: random.Random) -> list[str]:
    """The pieces of one random string; joined, they are the string.

    Pieces begin where the tokenizer splits, so that a prompt may stop after any of them.
    """
    kind = rng.randrange(5)
    count = rng.randint(4, 9)
    if kind == 0:
        groups = ["".join(rng.choices(LETTERS, k=3)) for _ in range(count // 2 + 1)]
        return [piece for group in groups for piece in (group, "-")][:-1]
    if kind == 1:
        return ["".join(rng.choices("0123456789", k=2)) for _ in range(count)]
    if kind == 2:
        words = [invented_word(rng, 1) for _ in range(count)]
    elif kind == 3:
        return rng.choices("BDGHJKLMNPQRSTVWXZ", k=count)
    else:
        words = rng.choices(["ka", "lo", "mi", "tu", "re", "so", "ni", "ba", "do", "fe"], k=count)
    return [words[0]] + [" " + word for word in words[1:]]


def _held(pieces: list[str]) -> bool:
    """True when a run of four of the pieces (or of three, if that is all) is held out."""
    length = min(4, len(pieces))
    bare = [piece.strip() for piece in pieces]
    runs = (bare[start : start + length] for start in range(len(bare) - length + 1))
    return any(is_held_out("string", *run, per_mille=30) for run in runs)


def _drawn(rng: random.Random, held: bool) -> list[str]:
    while True:
        pieces = _pieces(rng)
        if _held(pieces) == held:
            return pieces


def _table(rng: random.Random) -> str:
    """Names with numbers, some asked for again: `brol = 17; tesk = 42; brol = 17`."""
    names = [invented_word(rng, 1) for _ in range(rng.randint(3, 6))]
    rows = [f"{name} = {rng.randint(10, 99)}" for name in dict.fromkeys(names)]
    return "; ".join(rows + rng.sample(rows, rng.randint(1, len(rows))))


def sample(rng: random.Random) -> str:
    """One training text: a random string said twice or three times, or a table asked again."""
    if rng.random() < 0.2:
        return _table(rng)
    text = "".join(_drawn(rng, held=False))
    before, between, after = rng.choice(FRAMES)
    again = between + text if rng.random() < 0.3 else ""
    return f"{before}{text}{between}{text}{again}{after}".strip(" ")


def held_out(rng: random.Random) -> Case:
    """Asks how the second occurrence goes on, after at least two pieces, for an unseen string.

    Deciding: where the piece that is asked began before, after the same two pieces; of the piece
    its first letter or sign, thus its first token, which is what is asked.
    """
    while True:
        pieces = _drawn(rng, held=True)
        at = rng.randint(2, len(pieces) - 1)
        if _is_certain(pieces, at):
            break
    text = "".join(pieces)
    before, between, _ = rng.choice(FRAMES)
    prompt = f"{before}{text}{between}{''.join(pieces[:at])}"
    first, second = len(before), len(before) + len(text) + len(between)
    starts = [
        *(first + start for start in _earlier(pieces, at, len(pieces))),
        *(second + start for start in _earlier(pieces, at, at)),
    ]
    deciding = tuple((start, start + 1) for start in starts)
    return Case("induction", prompt, "".join(pieces[at:]), text, deciding)


def _earlier(pieces: list[str], at: int, end: int) -> list[int]:
    """Where, before piece number `end`, piece `at` stands after the two pieces it stands after.

    Counted in characters of the string, from its beginning to the piece's first letter or sign.
    The first piece has no space before it, and may be said again later with one.
    """
    bare = [piece.strip() for piece in pieces]
    return [
        len("".join(pieces[: number + 1])) - len(bare[number])
        for number in range(2, end)
        if bare[number - 2 : number + 1] == bare[at - 2 : at + 1]
    ]


def _is_certain(pieces: list[str], at: int) -> bool:
    """True when the last two pieces before `at` occur once, so that the rest is determined."""
    last = pieces[at - 2 : at]
    starts = range(len(pieces) - 1)
    return sum(pieces[start : start + 2] == last for start in starts) == 1
