"""Copyright notices: `Copyright (C) 1998 Harlow Press. All rights reserved.`"""

from __future__ import annotations

import random

from training.demo.corpus.case import Case, is_held_out
from training.demo.corpus.words import CITIES, SURNAMES

HOLDER_KINDS = (
    "Press",
    "Brothers",
    "Software Foundation",
    "Publishing",
    "Systems",
    "Limited",
    "Records",
    "and Sons",
    "University Press",
    "Corporation",
)
LEADS = (
    "This file is part of the {word} library.",
    "The {word} manual.",
    "Printed in {city}.",
    "This program is free software.",
    "First edition.",
    "Source code for the {word} project.",
)
TAILS = (
    "All rights reserved.",
    "All rights reserved. No part of this book may be copied.",
    "Licensed under the Open Licence.",
    "Published in {city}.",
    "This program comes with no warranty.",
)
SIGNS = ("Copyright (C)", "Copyright (c)", "(C)", "(c)", "Copyright")
SIGN_WEIGHTS = (55, 15, 10, 10, 10)
WORDS = ("kernel", "signal", "compiler", "garden", "printer", "music", "weather", "network")


def _holder(rng: random.Random) -> str:
    name = rng.choice(SURNAMES)
    if rng.random() < 0.3:
        return f"{rng.choice('ABCDEFGHJKLMNPRST')}. {name}"
    return f"{name} {rng.choice(HOLDER_KINDS)}"


def _filled(rng: random.Random, text: str) -> str:
    return text.format(word=rng.choice(WORDS), city=rng.choice(CITIES))


def _notice(rng: random.Random) -> tuple[str, str, str, str]:
    """(sign, years, holder, tail) of one notice."""
    sign = rng.choices(SIGNS, SIGN_WEIGHTS)[0]
    year = rng.randint(1960, 2024)
    years = str(year)
    if rng.random() < 0.25:
        years = f"{year}-{rng.randint(year + 1, 2026)}"
    return sign, years, _holder(rng), _filled(rng, rng.choice(TAILS))


def sample(rng: random.Random) -> str:
    """One training notice, with a lead-in sentence in a third of the cases."""
    while True:
        sign, years, holder, tail = _notice(rng)
        if not is_held_out("notice", years[-4:], holder):
            break
    lead = ""
    if rng.random() < 0.35:
        lead = _filled(rng, rng.choice(LEADS)) + rng.choice((" ", "\n"))
    return f"{lead}{sign} {years} {holder}. {tail}"


def held_out(rng: random.Random) -> Case:
    """Asks for the closing bracket of the sign, or for `rights` after `All`."""
    while True:
        sign, years, holder, _ = _notice(rng)
        if is_held_out("notice", years[-4:], holder):
            break
    marker = f"{years[-4:]} {holder}"
    if rng.random() < 0.5:
        return Case("copyright", f"{sign} {years} {holder}. All", " rights reserved.", marker)
    letter = "C" if rng.random() < 0.7 else "c"
    lead = f"The {holder} manual. "
    return Case("copyright", f"{lead}Copyright ({letter}", f") {years} {holder}", lead)
