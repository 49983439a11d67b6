"""Ordinary prose: short stories, news, letters and talk with agreement, tense and topic."""

from __future__ import annotations

import random
from dataclasses import dataclass

from training.demo.corpus.topics import Topic, topics
from training.demo.corpus.words import CITIES, DAYS, MEN, MONTHS, NUMBER_WORDS, WOMEN, article, zipf

IRREGULAR_PLURALS = {"fish": "fish", "knife": "knives"}
PREPOSITIONS = ("near", "behind", "in", "outside")
ADVERBS = ("slowly", "quickly", "suddenly", "carefully", "often", "never", "always", "again")
FEELINGS = ("happy", "tired", "angry", "afraid", "surprised", "proud", "sad", "hungry")
OPENERS = (
    "In the morning",
    "Every day",
    "After a while",
    "At night",
    "Later",
    "In the end",
    "That evening",
    "A week later",
)


def plural(noun: str) -> str:
    """The plural of a regular noun, or of one of the few irregular ones."""
    if noun in IRREGULAR_PLURALS:
        return IRREGULAR_PLURALS[noun]
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun in ("potato", "echo") else "s")


def third_person(verb: str) -> str:
    """The present form after he, she or it."""
    return plural(verb) if verb != "go" else "goes"


@dataclass(frozen=True)
class Person:
    """Whom a story is about."""

    name: str
    pronoun: str
    possessive: str
    objective: str

    @classmethod
    def draw(cls, rng: random.Random) -> Person:
        """A man or a woman of the name lists."""
        if rng.random() < 0.5:
            return cls(rng.choice(WOMEN), "she", "her", "her")
        return cls(rng.choice(MEN), "he", "his", "him")


@dataclass(frozen=True)
class Style:
    """What stays the same through one document: its topic, tense and people."""

    topic: Topic
    past: bool
    hero: Person
    other: Person

    def verb(self, forms: tuple[str, str], many: bool = False) -> str:
        """The verb in the document's tense, agreeing with one subject or with many."""
        base, past = forms
        if self.past:
            return past
        return base if many else third_person(base)

    def be(self, many: bool = False) -> str:
        """`is`, `are`, `was` or `were`."""
        if self.past:
            return "were" if many else "was"
        return "are" if many else "is"


def _thing(rng: random.Random, topic: Topic) -> tuple[str, str]:
    """A noun of the topic and an adjective that suits it."""
    noun = zipf(rng, list(topic.things))
    return noun, zipf(rng, list(topic.things[noun]))


def _object(rng: random.Random, style: Style) -> str:
    """A noun phrase such as `the old boat`, `a boat`, `her boats`, `three boats`."""
    noun, adjective = _thing(rng, style.topic)
    described = f"{adjective} {noun}" if rng.random() < 0.5 else noun
    kind = rng.choices(range(4), (45, 25, 15, 15))[0]
    if kind == 0:
        return f"the {described}"
    if kind == 1:
        return f"{article(described)} {described}"
    if kind == 2:
        return f"{style.hero.possessive} {described}"
    described = described.removesuffix(noun) + plural(noun)
    return f"{rng.choice(('some', 'many', *NUMBER_WORDS[1:6]))} {described}"


def _acts(rng: random.Random, style: Style, subject: str) -> str:
    """`Anna repaired the old boat in the harbour`"""
    adverb = f"{rng.choice(ADVERBS)} " if rng.random() < 0.2 else ""
    place = f" {_where(rng, style.topic)}" if rng.random() < 0.35 else ""
    verb = style.verb(style.topic.acts[rng.randrange(len(style.topic.acts))])
    return f"{subject} {adverb}{verb} {_object(rng, style)}{place}"


def _where(rng: random.Random, topic: Topic) -> str:
    return f"{zipf(rng, list(PREPOSITIONS))} the {zipf(rng, list(topic.places))}"


def _thing_happens(rng: random.Random, style: Style) -> str:
    """`The boats near the harbour were old` with agreement across the place."""
    noun, adjective = _thing(rng, style.topic)
    many = rng.random() < 0.45
    head = plural(noun) if many else noun
    if rng.random() < 0.4:
        head += f" {_where(rng, style.topic)}"
    if rng.random() < 0.5:
        return f"The {head} {style.be(many)} {adjective}"
    verb = style.verb(rng.choice(style.topic.happens), many)
    adverb = f" {rng.choice(ADVERBS[:4])}" if rng.random() < 0.3 else ""
    return f"The {head} {verb}{adverb}"


def _speech(rng: random.Random, style: Style) -> str:
    """Reported or direct speech about the topic."""
    noun, adjective = _thing(rng, style.topic)
    said = style.verb(rng.choice((("say", "said"), ("think", "thought"), ("hope", "hoped"))))
    claim = f"the {noun} {style.be()} {adjective}"
    kind = rng.randrange(3)
    if kind == 0:
        return f"{style.hero.name} {said} that {claim}."
    if kind == 1:
        told = "told" if style.past else "tells"
        return f"{style.other.name} {told} {style.hero.objective} that {claim}."
    asked = rng.choice(("asked", "answered", "said") if style.past else ("asks", "says"))
    words = rng.choice(("I like", "Look at", "We need", "Where is"))
    return f'"{words} the {noun}", {asked} {style.hero.name}.'


def _feels(rng: random.Random, style: Style) -> str:
    """`She was tired because the boat was old.`"""
    noun, adjective = _thing(rng, style.topic)
    reason = f"because the {noun} {style.be()} {'too ' if rng.random() < 0.4 else ''}{adjective}"
    subject = style.hero.pronoun.capitalize()
    return f"{subject} {style.be()} {rng.choice(FEELINGS)} {reason}."


def _sentence(rng: random.Random, style: Style, first: bool) -> str:
    """One sentence of a story; the first one names its hero."""
    worker = zipf(rng, list(style.topic.workers))
    if first:
        live = style.verb(("live", "lived"))
        city = zipf(rng, CITIES)
        return rng.choice(
            (
                f"{style.hero.name} {style.be()} {article(worker)} {worker} in {city}.",
                f"{style.hero.name}, {article(worker)} {worker}, {live} in {city}.",
                f"{_acts(rng, style, style.hero.name)}.",
                f"{_acts(rng, style, 'The ' + worker)}.",
                f"{_thing_happens(rng, style)}.",
            )
        )
    kind = rng.choices(range(6), (30, 20, 20, 12, 10, 8))[0]
    if kind == 0:
        return f"{_acts(rng, style, style.hero.pronoun.capitalize())}."
    if kind == 1:
        return f"{_thing_happens(rng, style)}."
    if kind == 2:
        return _speech(rng, style)
    if kind == 3:
        return _feels(rng, style)
    if kind == 4:
        return f"{rng.choice(OPENERS)}, {_acts(rng, style, style.hero.pronoun)}."
    link = rng.choice(("but", "and", "while"))
    return f"{_acts(rng, style, 'The ' + worker)}, {link} {_lower(_thing_happens(rng, style))}."


def _lower(text: str) -> str:
    return text[0].lower() + text[1:]


def _news(rng: random.Random, style: Style) -> str:
    """A dated report of one or two sentences."""
    noun, adjective = _thing(rng, style.topic)
    place = zipf(rng, CITIES)
    day = rng.choice((f"on {rng.choice(DAYS)}", f"in {rng.choice(MONTHS)}", "last week"))
    worker = zipf(rng, list(style.topic.workers))
    verb = rng.choice(style.topic.acts)[1]
    start = (
        f"{place.upper()}, {rng.choice(MONTHS)} {rng.randint(1, 28)}. "
        if rng.random() < 0.3
        else ""
    )
    return (
        f"{start}The {worker}s of {place} {verb} the {adjective} {noun} {day}, "
        f"officials said. {_thing_happens(rng, style)}."
    )


def _letter(rng: random.Random, style: Style) -> str:
    """A short letter with a greeting and a close."""
    noun, adjective = _thing(rng, style.topic)
    city = zipf(rng, CITIES)
    middle = rng.choice(
        (
            f"I am writing to you from {city}",
            f"thank you for the {noun}",
            f"I hope you are well in {city}",
            f"we have not seen the {noun} since {rng.choice(MONTHS)}",
        )
    )
    present = Style(style.topic, False, style.hero, style.other)
    news = _thing_happens(rng, present)
    close = rng.choice(("Love", "Best wishes", "Yours"))
    return (
        f"Dear {style.other.name},\n{middle}. {news}. "
        f"The {noun} is {adjective}.\n{close}, {style.hero.name}"
    )


class Prose:
    """Draws ordinary prose."""

    def __init__(self) -> None:
        self.topics = topics()

    def style(self, rng: random.Random) -> Style:
        """A topic, a tense and two people."""
        hero, other = Person.draw(rng), Person.draw(rng)
        return Style(rng.choice(self.topics), rng.random() < 0.65, hero, other)

    def sentence(self, rng: random.Random) -> str:
        """One sentence that can stand alone."""
        return _sentence(rng, self.style(rng), first=rng.random() < 0.7)

    def sample(self, rng: random.Random) -> str:
        """A story of three to eight sentences, a news report, or a letter."""
        style = self.style(rng)
        draw = rng.random()
        if draw < 0.15:
            return _news(rng, style)
        if draw < 0.25:
            return _letter(rng, style)
        count = rng.randint(3, 8)
        return " ".join(_sentence(rng, style, first=number == 0) for number in range(count))
