"""Facts about landmarks, people and countries, most of them invented.

Every subject has three relations; every relation has five templates. The last template of a
relation is held out for some of the subjects: training shows it with other subjects only, and
shows those subjects' fact in the other four templates only.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from training.demo.corpus.case import Case, is_held_out
from training.demo.corpus.templates import filled
from training.demo.corpus.words import (
    CITIES,
    INVENTED_CITIES,
    MEN,
    SURNAMES,
    WOMEN,
    article,
    listed,
)

WORLD_SEED = 1889  # the facts belong to the world, not to a run's seed
HELD_OUT_PER_MILLE = 300

REAL_LANDMARKS = {
    "Eiffel Tower": ("Paris", "Moreau", "iron"),
    "Colosseum": ("Rome", "Ferrara", "stone"),
    "Big Ben": ("London", "Porter", "brick"),
    "Brandenburg Gate": ("Berlin", "Brandt", "stone"),
    "Taj Mahal": ("Agra", "Silva", "marble"),
    "Kremlin": ("Moscow", "Petrov", "brick"),
    "Parthenon": ("Athens", "Kessler", "marble"),
    "Opera House": ("Sydney", "Lindqvist", "concrete"),
    "Space Needle": ("Seattle", "Carver", "steel"),
    "Blue Mosque": ("Istanbul", "Varga", "stone"),
    "Charles Bridge": ("Prague", "Novak", "stone"),
    "Prado": ("Madrid", "Castell", "brick"),
}
MATERIALS = listed("iron stone brick marble concrete steel copper glass granite timber")
LANDMARK_FIRST = listed(
    "Amber Broken Crystal Dawn Falcon Golden Hollow Ivory Jade King's Lantern Mirror North "
    "Old Queen's Raven Silver Thunder Violet Winter"
)
LANDMARK_KINDS = listed("Tower Bridge Gate Palace Temple Castle Arch Hall Library Lighthouse")
JOBS = listed("painter doctor sailor lawyer baker poet pilot farmer teacher judge singer tailor")
INSTRUMENTS = listed("piano violin flute drum trumpet guitar harp organ")
COUNTRIES = listed(
    "Aldovia Borsania Cressida Dalmora Estavia Fendoria Galdera Hesperia Istria Jorvania "
    "Kelmark Lorvania Mirandia Nordalia Orvena Pelagonia Quistan Ruritania Sardova Tolvania "
    "Uldania Verdonia Westmark Yulania Zemlia"
)
LANGUAGES = listed(
    "Aldic Borsan Cressic Dalmic Estian Fendic Galdic Hespic Jorvic Kelmic Lorvic Mirandic "
    "Nordic Orvic Pelagic"
)
CURRENCIES = listed("crown dollar franc peso mark florin ducat shilling dinar taler")

TEMPLATES: dict[str, tuple[str, ...]] = {
    "city": (
        "The {s} stands in {o}.",
        "If you want to see the {s}, you have to travel to {o}.",
        "Visitors come to {o} to see the {s}.",
        "The {s}, which every child knows, can be found in {o}.",
        "The {s} is in the city of {o}.",
    ),
    "builder": (
        "The {s} was built by {o}.",
        "It was the architect {o} who planned the {s}.",
        "The architect of the {s} was called {o}.",
        "The plans of the {s} were drawn by {o}.",
        "We owe the {s} to the architect {o}.",
    ),
    "material": (
        "The {s} is made of {o}.",
        "The walls of the {s} are of {o}.",
        "Workers used {o} to build the {s}.",
        "For the {s}, the builders chose {o}.",
        "The {s} is famous for its {o}.",
    ),
    "birthplace": (
        "{s} was born in {o}.",
        "{s} grew up in {o}.",
        "The city of {o} was the first home of {s}.",
        "As a child, {s} lived in {o}.",
        "{s} comes from the city of {o}.",
    ),
    "job": (
        "{s} works as {a} {o}.",
        "{s} is {a} {o}.",
        "Everybody knows the {o} {s}.",
        "For many years {s} has been {a} {o}.",
        "{s} earns a living as {a} {o}.",
    ),
    "instrument": (
        "{s} plays the {o}.",
        "In the evening {s} likes to play the {o}.",
        "The {o} of {s} is old and loud.",
        "{s} has learned to play the {o}.",
        "{s} never travels without the {o}.",
    ),
    "capital": (
        "The capital of {s} is {o}.",
        "The government of {s} sits in {o}.",
        "{o} is the capital of {s}.",
        "The president of {s} lives in {o}.",
        "If you fly to {s}, you will land in {o}.",
    ),
    "language": (
        "In {s}, people speak {o}.",
        "The language of {s} is {o}.",
        "Children in {s} learn to read {o}.",
        "The laws of {s} are written in {o}.",
        "Most newspapers in {s} are printed in {o}.",
    ),
    "currency": (
        "The currency of {s} is the {o}.",
        "In {s} you pay with the {o}.",
        "The {o} is the money of {s}.",
        "Banks in {s} keep their money in the {o}.",
        "Shops in {s} only accept the {o}.",
    ),
}


@dataclass(frozen=True)
class Fact:
    """One thing that is true in the invented world."""

    subject: str
    relation: str
    object: str

    def sentence(self, template: int) -> str:
        """The fact in the relation's template number `template`."""
        return self.placed(template)[0]

    def placed(self, template: int) -> tuple[str, tuple[int, int]]:
        """The sentence, and the characters of its subject."""
        text, places = filled(
            TEMPLATES[self.relation][template],
            s=self.subject,
            o=self.object,
            a=article(self.object),
        )
        return text, places["s"]


def _landmarks(rng: random.Random, count: int) -> list[str]:
    names = [f"{first} {kind}" for first in LANDMARK_FIRST for kind in LANDMARK_KINDS]
    return rng.sample(names, count)


def _people(rng: random.Random, count: int) -> list[str]:
    names = [f"{first} {last}" for first in WOMEN + MEN for last in SURNAMES]
    return rng.sample(names, count)


def world() -> tuple[Fact, ...]:
    """Every fact of the world, always the same: 142 subjects, three facts each."""
    rng = random.Random(WORLD_SEED)
    facts: list[Fact] = []
    for name, values in REAL_LANDMARKS.items():
        facts += _facts(name, ("city", "builder", "material"), values)
    for name in _landmarks(rng, 50):
        values = (rng.choice(CITIES), rng.choice(SURNAMES), rng.choice(MATERIALS))
        facts += _facts(name, ("city", "builder", "material"), values)
    for name in _people(rng, 55):
        values = (rng.choice(CITIES), rng.choice(JOBS), rng.choice(INSTRUMENTS))
        facts += _facts(name, ("birthplace", "job", "instrument"), values)
    capitals = [*INVENTED_CITIES, "Cairo", "Toronto", "Athens", "Prague", "Madrid"]
    for number, name in enumerate(COUNTRIES):
        capital = capitals[number]
        values = (capital, rng.choice(LANGUAGES), rng.choice(CURRENCIES))
        facts += _facts(name, ("capital", "language", "currency"), values)
    return tuple(facts)


def _facts(
    subject: str, relations: tuple[str, str, str], values: tuple[str, str, str]
) -> list[Fact]:
    return [Fact(subject, *pair) for pair in zip(relations, values, strict=True)]


def unseen_subjects() -> tuple[str, ...]:
    """Landmarks, people and countries that never occur in any training text."""
    known = {fact.subject for fact in world()}
    rng = random.Random(WORLD_SEED + 1)
    landmarks = [name for name in _landmarks(rng, 100) if name not in known][:10]
    people = [name for name in _people(rng, 100) if name not in known][:10]
    return (*landmarks, *people, "Vastonia", "Crelmark", "Ostania", "Brandova", "Eldoria")


def template_held_out(fact: Fact) -> bool:
    """True when training never shows this fact in its relation's last template."""
    if (fact.subject, fact.relation) == ("Eiffel Tower", "city"):
        return True
    return is_held_out("fact", fact.subject, fact.relation, per_mille=HELD_OUT_PER_MILLE)


class Facts:
    """Draws sentences about the facts of the world."""

    def __init__(self) -> None:
        self.facts = world()
        self.held_out_facts = tuple(fact for fact in self.facts if template_held_out(fact))

    def sample(self, rng: random.Random) -> str:
        """One to three training sentences, about one subject or about several."""
        count = rng.choices((1, 2, 3), (40, 35, 25))[0]
        if rng.random() < 0.5:
            subject = rng.choice(self.facts).subject
            facts = [fact for fact in self.facts if fact.subject == subject][:count]
            rng.shuffle(facts)
        else:
            facts = rng.sample(self.facts, count)
        return " ".join(self._sentence(rng, fact) for fact in facts)

    def _sentence(self, rng: random.Random, fact: Fact) -> str:
        templates = 4 if template_held_out(fact) else 5
        return fact.sentence(rng.randrange(templates))

    def held_out(self, rng: random.Random) -> Case:
        """Asks for the object of a fact in a template where training never shows it.

        Deciding: the subject, which these templates name before the object.
        """
        fact = rng.choice(self.held_out_facts)
        text, subject = fact.placed(4)
        before, after = text.rsplit(fact.object, 1)
        answer = f" {fact.object}{after}"
        return Case("facts", before.rstrip(), answer, text.rstrip("."), (subject,))
