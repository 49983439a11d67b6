"""Cached phrases: texts that always go on the same way once they have begun."""

from __future__ import annotations

import random

from training.demo.corpus.case import Case, is_held_out
from training.demo.corpus.words import CITIES, invented_word

# Each phrase is cut after its cue: what follows the first `|` is certain. `{word}`, `{Word}`,
# `{city}`, `{n}` and `{m}` stand for something drawn anew each time.
PHRASES = (
    "www.{word}.co|.uk",
    "https://en.wikipedia|.org/wiki/{Word}",
    "the number 3.14|159265",
    "the number 2.71|828182",
    "About {n},{m} results (0.{m}| seconds)",
    "From Wikipedia,| the free encyclopedia",
    "Make America| Great Again",
    "To be, or not| to be, that is the question",
    "Once upon| a time there was a king",
    "Lorem ipsum| dolor sit amet",
    "The quick brown| fox jumps over the lazy dog",
    "May the Force| be with you",
    "Merry Christmas| and a Happy New Year",
    "I think, therefore| I am",
    "Elementary,| my dear Watson",
    "Ladies and| gentlemen",
    "Frequently Asked| Questions",
    "Terms and Conditions| apply",
    "Error 404:| page not found",
    "import numpy| as np",
    "<!DOCTYPE| html>",
    "SELECT *| FROM {word}",
    "#include <stdio|.h>",
    "an apple a day| keeps the doctor away",
    "better late| than never",
    "the United States| of America",
    "Rome was not built| in a day",
    "actions speak louder| than words",
    "once in a blue| moon",
    "the early bird| catches the worm",
    "Thank you for your| attention",
    "Yours| sincerely",
    "Click here to| subscribe",
    "Page {n} of {m}|. Back to top",
    "Last updated| on Monday",
    "For more information,| please contact us",
)
LEADS = (
    "",
    "",
    "",
    "The page began like this: ",
    "On the wall someone had painted ",
    "She typed slowly: ",
    "It was late when he wrote ",
    "The old card said ",
    "We all remember ",
    "At the end of the letter stood ",
    "The screen showed ",
    "In {city} you often read ",
    "He copied it again: ",
    "The first line was ",
    "Nobody in {city} had heard ",
)
TAILS = ("", ".", ".", ", and that was all.", "\n", ". She smiled.")


def _lead(rng: random.Random) -> str:
    return rng.choice(LEADS).format(city=rng.choice(CITIES))


def _filled(rng: random.Random, phrase: str) -> str:
    word = invented_word(rng, rng.randint(1, 2))
    n, m = rng.randint(1, 99), rng.randint(100, 999)
    if phrase.startswith("About"):
        return phrase.replace("0.{m}", f"0.{rng.randint(10, 99)}").format(n=n, m=m)
    return phrase.format(word=word, Word=word.capitalize(), n=n, m=m)


def _held(lead: str, phrase: str) -> bool:
    return len(lead) > 0 and is_held_out("phrase", lead, phrase)


def _drawn(rng: random.Random, held: bool) -> tuple[str, str]:
    while True:
        lead, phrase = _lead(rng), rng.choice(PHRASES)
        if _held(lead, phrase) == held:
            return lead, phrase


def sample(rng: random.Random) -> str:
    """One phrase, after a lead-in in most cases."""
    lead, phrase = _drawn(rng, held=False)
    return lead + _filled(rng, phrase).replace("|", "") + rng.choice(TAILS)


def held_out(rng: random.Random) -> Case:
    """Asks how a phrase goes on, after a lead-in where it never stood in training."""
    lead, phrase = _drawn(rng, held=True)
    cue, rest = _filled(rng, phrase).split("|")
    return Case("cached phrases", lead + cue, rest, lead + cue)
