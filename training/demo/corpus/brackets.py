"""Brackets and quotes that must be closed: nested, mirrored, and over a distance.

Every case asks for a closing sign that is certain from the text before it.
"""

from __future__ import annotations

import random

from training.demo.corpus.case import Case, is_held_out
from training.demo.corpus.templates import filled
from training.demo.corpus.words import MEN, NUMBER_WORDS, WOMEN, article, invented_word, listed

PAIRS = {"(": ")", "[": "]", "{": "}", "<": ">", '"': '"', "'": "'", "*": "*", "|": "|"}
NESTING = "([{<"

LANGUAGES = (
    "Lisp dialect",
    "Scheme dialect",
    "query language",
    "small language",
    "template language",
    "markup language",
    "modern compiler",
    "file format",
    "shell script",
    "music notation",
    "configuration file",
    "data format",
)
THINGS = listed("expression list block record comment tag string vector form group field note")
FRAMES = (
    "In a {language}, every {thing} begins with {o} and ends with {c}",
    "In this {language}, each {thing} begins with {o} and ends with {c}",
    "In the old {language}, one {thing} starts with {o} and always ends with {c}",
    "{A} {thing} in any {language} opens with {o} and closes with {c}",
    "The {language} writes a {thing} between {o} and {c}",
    "Every {thing} of the {language} that opens with {o} must close with {c}",
)
ASIDES = (
    "see page {n}",
    "chapter {n}",
    "born in {year}",
    "about {n} miles",
    "figure {n}",
    "see note {n}",
    "room {n}",
    "since {year}",
)
NOUNS = listed("mayor teacher harbour library engine letter garden painting bridge captain report")
VERBS = (
    "was late",
    "was old",
    "was famous",
    "had gone",
    "came back",
    "was new",
    "was lost",
    "stood there",
)


def _delimited(
    rng: random.Random,
) -> tuple[tuple[str, ...], str, str, str, tuple[int, int]]:
    """A sentence that names an opening and its closing sign.

    (key, before, closer, after, where the opening sign stands).
    """
    language, thing = rng.choice(LANGUAGES), rng.choice(THINGS)
    opener = rng.choice(list(PAIRS))
    text, places = filled(
        rng.choice(FRAMES),
        A=article(thing).capitalize(),
        language=language,
        thing=thing,
        o=opener,
        c="\0",
    )
    before, after = text.split("\0")
    key = (language, thing, opener)
    return key, before.rstrip(), " " + PAIRS[opener], after + ".", places["o"]


def _delimited_held(key: tuple[str, ...]) -> bool:
    return key == ("Lisp dialect", "expression", "(") or is_held_out("delimited", *key)


def _mirror(rng: random.Random) -> tuple[str, str, str]:
    """Nested brackets around a word: (openers with word, closers in order, separator)."""
    depth = rng.choices((2, 3, 4, 5, 6), (20, 30, 25, 15, 10))[0]
    openers = [rng.choice(NESTING) for _ in range(depth)]
    gap = rng.choice(("", " "))
    word = rng.choice((invented_word(rng, 1), str(rng.randint(1, 99)), rng.choice("abcnxyz")))
    opened = gap.join([*openers, word])
    closed = gap + gap.join(PAIRS[sign] for sign in reversed(openers))
    return opened, closed, "".join(openers)


def _inner_held(kind: str, outer_first: str | list[str], shortest: int) -> bool:
    """True when the nest, or a nest inside it of at least `shortest` levels, is held out."""
    inner = (outer_first[start:] for start in range(len(outer_first) - shortest + 1))
    return any(is_held_out(kind, *nest) for nest in inner)


def _call(rng: random.Random) -> tuple[str, str, list[str]]:
    """Nested calls with an index at the core: (text before the closers, closers, levels)."""
    depth = rng.randint(1, 4)
    functions = listed("print len sum max min abs first last sort count list join")
    names = [rng.choice(functions) for _ in range(depth)]
    core = rng.choice(("names", "rows", "items", "x", "data", "days", "pages"))
    index = rng.choice(("i", "j", "n", "k"))
    text = "".join(name + "(" for name in names) + f"{core}[{index}"
    return text, "]" + ")" * depth, [*names, f"{core}[{index}"]


def _aside(rng: random.Random) -> tuple[str, str, str, str]:
    """Prose with a short aside: (lead, aside with its openers, closers, rest of the sentence)."""
    noun, verb = rng.choice(NOUNS), rng.choice(VERBS)
    note = rng.choice(ASIDES).format(n=rng.randint(10, 99), year=rng.randint(1700, 2020))
    style = rng.random()
    if style < 0.5:
        return f"The {noun} ", f"({note}", ")", f" {verb}."
    if style < 0.75:
        return f"The {noun} ", f"[{note}", "]", f" {verb}."
    other = rng.choice(NOUNS)
    outer, inner = rng.choice((("(", "["), ("[", "("), ("(", "("), ("{", "(")))
    opened = f"{outer}and the {other} {inner}{note}"
    return f"The {noun} ", opened, PAIRS[inner] + PAIRS[outer], f" {verb}."


def _quote(rng: random.Random) -> str:
    """Reported speech in quotes, some with a quotation inside."""
    who, whom = rng.choice(WOMEN + MEN), rng.choice(WOMEN + MEN)
    number = rng.choice(NUMBER_WORDS)
    said = rng.choice(
        (
            f"I have {number} letters for you",
            f"the {rng.choice(NOUNS)} {rng.choice(VERBS)}",
            f"we will meet {whom} again",
            f"nobody told me '{rng.choice(('wait', 'no', 'stop', 'come'))}'",
        )
    )
    return rng.choice(
        (f'{who} said: "{said}."', f'"{said}", said {who}.', f'"{said}," {who} wrote.')
    )


def _train_aside(rng: random.Random) -> str:
    while True:
        lead, opened, closed, rest = _aside(rng)
        if not is_held_out("aside", lead, opened):
            return lead + opened + closed + rest


def _train_call(rng: random.Random) -> str:
    while True:
        text, closed, levels = _call(rng)
        if not _inner_held("call", levels, 2):
            return rng.choice(("", "Then ", "y = ", "return ")) + text + closed


def _train_mirror(rng: random.Random) -> str:
    while True:
        opened, closed, openers = _mirror(rng)
        if not _inner_held("mirror", openers, 3):
            return opened + closed


def sample(rng: random.Random) -> str:
    """One training text: a delimiter sentence, mirrored brackets, a call, an aside or a quote."""
    kind = rng.choices(range(5), (25, 30, 15, 20, 10))[0]
    if kind == 1:
        lines = [_train_mirror(rng) for _ in range(rng.randint(1, 3))]
        return rng.choice(("\n", " ; ", ", ")).join(lines)
    if kind == 2:
        return _train_call(rng)
    if kind == 3:
        return _train_aside(rng)
    if kind == 4:
        return _quote(rng)
    while True:
        key, before, closer, after, _ = _delimited(rng)
        if not _delimited_held(key):
            return before + closer + after


def held_out(rng: random.Random) -> Case:
    """Asks for one certain closing sign of a case that training never shows.

    Deciding: the bracket or quote that it closes.
    """
    kind = rng.choices(range(4), (30, 30, 15, 25))[0]
    while True:
        if kind == 0:
            key, before, closer, _, opener = _delimited(rng)
            if _delimited_held(key):
                return Case("closings", before, closer, before, (opener,))
        elif kind == 1:
            opened, closed, openers = _mirror(rng)
            if _inner_held("mirror", openers, 3):
                return _closing_case(rng, "", opened, closed)
        elif kind == 2:
            opened, closed, levels = _call(rng)
            if _inner_held("call", levels, 2):
                return _closing_case(rng, "", opened, closed)
        else:
            lead, opened, closed, _ = _aside(rng)
            if is_held_out("aside", lead, opened):
                return _closing_case(rng, lead, opened, closed)


def _closing_case(rng: random.Random, lead: str, opened: str, closed: str) -> Case:
    """Asks for a random one of the closers.

    `opened` closes nothing, and has no brackets but those that `closed` closes, the last first:
    closer number `at` closes the opener that is number `at` from the end.
    """
    spaced = closed.startswith(" ")
    signs = [" " + sign for sign in closed.split()] if spaced else list(closed)
    at = rng.randrange(len(signs))
    prompt = lead + opened + "".join(signs[:at])
    openers = [place for place, sign in enumerate(opened, len(lead)) if sign in NESTING]
    assert len(openers) == len(signs), opened + closed
    start = openers[-1 - at]
    return Case("closings", prompt, "".join(signs[at:]), lead + opened, ((start, start + 1),))
