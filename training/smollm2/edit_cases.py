"""Real facts that SmolLM2 knows, to be rewritten, in CounterFact's fields.

A fact is taken where the model says the object's first token after the prompt, and after a
paraphrase; neighbours, other subjects of which the same object is true, and what the subject is to
retain, where it says those. What is here is true, or commonly said; the model chooses among it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from sae_graphs.editing.generate import next_logits
from sae_graphs.editing.prompts import target_of
from sae_graphs.model.language_model import LanguageModel

OUT = Path("sae_graphs/editing/cases/smollm2.jsonl")
CASES = 20
NEIGHBOURS = range(4, 9)  # a case has so many
TEMPLATES = {
    "city": (
        "The {} is located in the city of",
        "The {} can be visited in the city of",
        "To see the {}, travel to the city of",
        "The {} is a famous landmark in the city of",
    ),
    "capital": (
        "The capital of {} is",
        "The capital city of {} is",
        "The capital of {} is the city of",
    ),
    "language": (
        "The official language of {} is",
        "Most people in {} speak",
        "The national language of {} is",
        "In {}, people speak",
    ),
    "country": (
        "The {} is located in the country of",
        "The {} can be visited in the country of",
        "To see the {}, travel to the country of",
    ),
    "continent": ("{} is a country on the continent of", "{} is located on the continent of"),
    "tongue": (
        "The native language of {} was",
        "The mother tongue of {} was",
        "{} was a native speaker of",
    ),
    "maker": ("The {} is made by", "The {} was developed by", "The {} is a product of"),
}
ABOUT_COUNTRIES = ("{} is a country", "People who travel to {}")
OPENINGS = {
    **dict.fromkeys(("city", "country"), ("The {} is", "Visitors of the {}")),
    **dict.fromkeys(("capital", "language", "continent"), ABOUT_COUNTRIES),
    **{"tongue": ("{} was born", "{} is remembered for")},
    **{"maker": ("The {} is", "People who buy the {}")},
}
OBJECTS: dict[str, dict[str, tuple[str, ...]]] = {
    "city": {
        "Paris": (
            *("Eiffel Tower", "Louvre", "Arc de Triomphe", "Notre-Dame Cathedral", "Moulin Rouge"),
            *("Sacré-Cœur", "Musée d'Orsay", "Pompidou Centre", "Sorbonne", "Luxembourg Gardens"),
        ),
        "Rome": (
            *("Colosseum", "Pantheon", "Trevi Fountain", "Spanish Steps", "Circus Maximus"),
            *("Piazza Navona", "Arch of Constantine", "Baths of Caracalla", "Palatine Hill"),
        ),
        "London": (
            *("British Museum", "Palace of Westminster", "Big Ben", "Buckingham Palace"),
            *("National Gallery", "Trafalgar Square", "Tate Modern", "Hyde Park"),
        ),
        "Athens": ("Acropolis", "Parthenon", "Temple of Hephaestus", "Erechtheion"),
        "Berlin": (
            *("Brandenburg Gate", "Reichstag", "Checkpoint Charlie", "Unter den Linden"),
            *("Alexanderplatz", "Potsdamer Platz", "Charlottenburg Palace", "Pergamon Museum"),
        ),
        "Istanbul": (
            *("Hagia Sophia", "Topkapi Palace", "Galata Tower", "Dolmabahçe Palace"),
            *("Bosphorus Bridge", "Süleymaniye Mosque"),
        ),
        "Barcelona": ("Sagrada Familia", "Park Güell", "Casa Batlló", "Camp Nou", "Casa Milà"),
        "Florence": ("Uffizi Gallery", "Ponte Vecchio", "Palazzo Vecchio", "Boboli Gardens"),
        "Moscow": ("Kremlin", "Bolshoi Theatre", "Tretyakov Gallery", "Gorky Park"),
        "Tokyo": ("Senso-ji temple", "Meiji Shrine", "Ueno Park", "Shibuya Crossing"),
        "Vienna": ("Hofburg", "Schönbrunn Palace", "Prater", "Albertina"),
        "Madrid": ("Prado Museum", "Puerta del Sol", "Retiro Park"),
        "Beijing": ("Forbidden City", "Tiananmen Square", "Temple of Heaven"),
    },
    "capital": {
        **{"Paris": ("France",), "Rome": ("Italy",), "Athens": ("Greece",), "Berlin": ("Germany",)},
        **{"Moscow": ("Russia",), "Tokyo": ("Japan",), "Vienna": ("Austria",)},
        **{"Madrid": ("Spain",), "Beijing": ("China",), "Lisbon": ("Portugal",)},
        **{"Stockholm": ("Sweden",), "Oslo": ("Norway",), "Copenhagen": ("Denmark",)},
        **{"Dublin": ("Ireland",), "Nairobi": ("Kenya",), "Santiago": ("Chile",)},
        **{"Havana": ("Cuba",), "Ottawa": ("Canada",), "Budapest": ("Hungary",)},
    },
    "language": {
        "Spanish": (
            *("Mexico", "Colombia", "Peru", "Chile", "Uruguay", "Ecuador", "Cuba", "Argentina"),
            *("Venezuela", "Spain"),
        ),
        "Arabic": ("Morocco", "Egypt", "Algeria", "Saudi Arabia", "Iraq"),
        "English": ("Canada", "Kenya", "Nigeria", "Uganda", "Zambia", "Zimbabwe"),
        "German": ("Germany", "Austria"),
        **{"French": ("France",), "Italian": ("Italy",), "Russian": ("Russia",)},
    },
    "country": {
        "France": (
            *("Arc de Triomphe", "Palace of Versailles", "Eiffel Tower", "Notre-Dame Cathedral"),
            *("Louvre", "Sacré-Cœur", "Musée d'Orsay", "Mont Saint-Michel"),
        ),
        "Italy": (
            *("Leaning Tower of Pisa", "Colosseum", "Uffizi Gallery", "Trevi Fountain"),
            *("Roman Forum", "Ponte Vecchio"),
        ),
        "China": ("Forbidden City", "Terracotta Army", "Great Wall", "Tiananmen Square"),
        "Germany": ("Brandenburg Gate", "Reichstag", "Neuschwanstein Castle", "Cologne Cathedral"),
        "Japan": ("Tokyo Tower", "Senso-ji temple", "Meiji Shrine", "Tokyo Skytree"),
        "Greece": ("Parthenon", "Temple of Olympian Zeus", "Acropolis"),
        "India": ("Taj Mahal", "Red Fort", "Qutub Minar", "Golden Temple", "Hawa Mahal"),
        "Egypt": ("Great Pyramid of Giza", "Great Sphinx", "Valley of the Kings", "Abu Simbel"),
        "Spain": ("Prado Museum", "Sagrada Familia", "Alhambra"),
    },
    "continent": {
        "Africa": ("Uganda", "Kenya", "Nigeria", "Ghana", "Ethiopia", "Tanzania", "Mali", "Zambia"),
        "Europe": (
            *("Greece", "Norway", "Sweden", "Denmark", "Portugal", "Poland", "Ireland", "Belgium"),
            *("Italy", "France", "Germany", "Austria", "Spain", "Hungary"),
        ),
        "Asia": ("Bangladesh", "Mongolia", "South Korea", "Japan", "Nepal"),
    },
    "tongue": {
        "German": (
            *("Karl Marx", "Albert Einstein", "Immanuel Kant", "Franz Kafka", "Werner Heisenberg"),
            *("Max Planck", "Sigmund Freud", "Friedrich Nietzsche", "David Hilbert"),
        ),
        "French": (
            *("Victor Hugo", "René Descartes", "Claude Monet", "Voltaire", "Molière"),
            *("Marcel Proust", "Émile Zola", "Antoine Lavoisier", "Jean-Paul Sartre"),
        ),
        "Russian": (
            *("Leo Tolstoy", "Dmitri Mendeleev", "Fyodor Dostoevsky", "Anton Chekhov"),
            *("Alexander Pushkin", "Vladimir Lenin"),
        ),
        "English": ("Charles Darwin", "Richard Feynman", "Adam Smith", "Stephen Hawking"),
        "Italian": ("Dante Alighieri", "Enrico Fermi", "Niccolò Machiavelli"),
    },
    "maker": {
        "Apple": ("iPhone", "iPad", "Macintosh", "iPod", "MacBook", "iMac", "HomePod"),
        "Microsoft": ("Xbox", "Xbox 360", "Xbox One", "Windows Phone", "Zune", "HoloLens"),
        "Nintendo": ("Game Boy", "Wii", "GameCube", "Wii U"),
        "Sony": ("PlayStation", "PlayStation 2", "PlayStation 3", "Walkman"),
        "Google": ("Pixel phone",),
    },
}
RELIGION, CURRENCY = "The main religion of {} is", "The currency of {} is the"
OTHERS: dict[str, dict[str, tuple[str, ...]]] = {  # retained alone: prompt, object, subjects
    RELIGION: {
        "Islam": ("Morocco", "Egypt", "Algeria", "Saudi Arabia"),
        "Christianity": (
            *("France", "Italy", "Spain", "Mexico", "Colombia", "Uganda", "Russia", "Greece"),
            *("Germany", "Canada", "Norway", "Peru", "Chile"),
        ),
    },
    CURRENCY: {
        **{"peso": ("Mexico", "Argentina"), "rupee": ("India",), "ruble": ("Russia",)},
        **{"yen": ("Japan",), "Canadian dollar": ("Canada",), "euro": ("Belgium",)},
    },
    "{} shares a border with the United": {"States": ("Mexico", "Canada")},
    "{} shares a border with": {"Kenya": ("Uganda",)},
    "The longest river in {} is the": {"Nile": ("Egypt",)},
    "The ocean west of {} is the": {"Pacific": ("Chile",)},
    "The {} was designed by": {"Gustave Eiffel": ("Eiffel Tower",)},
    "The {} is home to the Mona": {"Lisa": ("Louvre",)},
    "The {} was built by the": {"Romans": ("Colosseum",)},
    "The {} was built for King": {"Louis": ("Palace of Versailles",)},
    "The {} is a temple dedicated to the goddess": {"Athena": ("Parthenon",)},
    "The {} is a temple dedicated to all the": {"gods": ("Pantheon",)},
    "The {} was built by the emperor": {"Shah Jahan": ("Taj Mahal",)},
    "The {} is made of white": {"marble": ("Taj Mahal",)},
    "The {} was built as a": {"tomb": ("Great Pyramid of Giza",)},
    "The {} holds the Rosetta": {"Stone": ("British Museum",)},
    "The {} is a bell": {"tower": ("Leaning Tower of Pisa",)},
    "The {} was the home of the": {"Ming emperors": ("Forbidden City",)},
    "The {} stands on a": {"hill": ("Acropolis",)},
    "{} wrote The Communist": {"Manifesto": ("Karl Marx",)},
    "{} developed the theory of": {"relativity": ("Albert Einstein",)},
    "{} won the Nobel Prize in": {"Physics": ("Albert Einstein", "Werner Heisenberg")},
    "{} is the author of Les": {"Misérables": ("Victor Hugo",)},
    '{} is known for saying "I think, therefore I': {"am": ("René Descartes",)},
    "{} was a founder of the art movement called": {"Impressionism": ("Claude Monet",)},
    "{} wrote War and": {"Peace": ("Leo Tolstoy",)},
    "{} created the periodic": {"table": ("Dmitri Mendeleev",)},
    "{} worked in the field of": {"chemistry": ("Dmitri Mendeleev",)},
    "{} is famous for the theory of": {"evolution": ("Charles Darwin",)},
    "The {} is a type of": {"smartphone": ("iPhone",), "computer": ("Macintosh",)},
    "The {} is a kind of": {"tablet": ("iPad",)},
    "The {} is used to listen to": {"music": ("iPod",)},
    "The {} is used to play video": {"games": ("Xbox", "PlayStation")},
}
ALSO = {"French": ("Canada", "Morocco", "Algeria"), "Paris": ("Pantheon",)}  # true, not asked
TIED = frozenset({"city", "country"})  # the one follows from the other


class Fact(NamedTuple):
    """What is true, and of which kind: one of `TEMPLATES`, or a prompt of `OTHERS`."""

    kind: str
    subject: str
    object: str

    def asked(self, number: int = 0) -> str:
        """The prompt, or another of its kind."""
        return TEMPLATES.get(self.kind, (self.kind,))[number].replace("{}", self.subject)


def facts() -> list[Fact]:
    """All that is known to be true; of a kind, one of each object in turn, so that they vary."""
    found = []
    for kind, objects in [*OBJECTS.items(), *OTHERS.items()]:
        for place in range(max(map(len, objects.values()))):
            for it, subjects in objects.items():
                found += [Fact(kind, subject, it) for subject in subjects[place : place + 1]]
    return found


def make_cases(model: LanguageModel, *, count: int = CASES) -> list[dict[str, Any]]:
    """So many cases, kinds in turn, each of another subject."""
    known = _known(model, facts())
    said = [fact for fact in facts() if known(fact, 0)]
    waiting = {kind: [it for it in said if it.kind == kind] for kind in TEMPLATES}
    cases: list[dict[str, Any]] = []
    while len(cases) < count and any(waiting.values()):
        for those in waiting.values():
            while those and len(cases) < count:
                fact = those.pop(0)
                taken = {case["requested_rewrite"]["subject"] for case in cases}
                case = None if fact.subject in taken else _case(fact, len(cases), known)
                if case is not None:
                    cases.append({"case_id": len(cases), **case})
                    break
    return cases


def _case(fact: Fact, number: int, known: Callable[[Fact, int], bool]) -> dict[str, Any] | None:
    near = _neighbours(fact, known)
    paraphrases = [
        fact.asked(other) for other in range(1, len(TEMPLATES[fact.kind])) if known(fact, other)
    ]
    if len(near) < NEIGHBOURS.start or not paraphrases or fact.object in fact.subject:
        return None
    retained = [
        {"prompt": it.asked(), "target": it.object}
        for it in facts()
        if it.subject == fact.subject and it.kind != fact.kind and known(it, 0)
        if not {it.kind, fact.kind} <= TIED
    ]
    return {
        "requested_rewrite": {
            "prompt": TEMPLATES[fact.kind][0],
            "relation_id": fact.kind,
            "target_new": {"str": _new(fact, number)},
            "target_true": {"str": fact.object},
            "subject": fact.subject,
        },
        "paraphrase_prompts": paraphrases,
        "neighborhood_prompts": near[: NEIGHBOURS.stop - 1],
        "generation_prompts": [it.format(fact.subject) for it in OPENINGS[fact.kind]],
        "retention_prompts": retained,
    }


def _neighbours(fact: Fact, known: Callable[[Fact, int], bool]) -> list[str]:
    """Prompts about other subjects, that do not hold the object; those of the same kind first."""
    near = [
        it
        for it in facts()
        if it.object == fact.object and it.subject != fact.subject and it.kind in TEMPLATES
        if it.object not in it.subject and (it.kind == fact.kind or fact.kind == "capital")
    ]
    found = []
    for it in near:
        numbers = [number for number in range(len(TEMPLATES[it.kind])) if known(it, number)]
        found += [it.asked(number) for number in numbers[:1]]
    return found


def _new(fact: Fact, number: int) -> str:
    """Another object of the kind, one by one, that is not true of the subject: neither is it among
    its facts, nor what is `ALSO` true."""
    objects = list(OBJECTS[fact.kind])
    true = {it.object for it in facts() if (it.kind, it.subject) == (fact.kind, fact.subject)}
    left = [it for it in objects[1:] + objects[:1] if it not in true]
    start = number % len(left)
    return next(it for it in left[start:] + left[:start] if fact.subject not in ALSO.get(it, ()))


def _known(model: LanguageModel, those: list[Fact]) -> Callable[[Fact, int], bool]:
    """Whether the model says a fact's object first after one of its kind's prompts."""
    asked = [
        (fact, number)
        for fact in those
        for number in range(len(TEMPLATES.get(fact.kind, (fact.kind,))))
    ]
    found: dict[tuple[Fact, int], bool] = {}
    for start in range(0, len(asked), 16):
        part = asked[start : start + 16]
        prompts = [fact.asked(number) for fact, number in part]
        top = next_logits(model, [model.tokenize(prompt) for prompt in prompts]).argmax(-1)
        for which, prompt, token in zip(part, prompts, top.tolist(), strict=True):
            found[which] = token == target_of(model, prompt, f" {which[0].object}").token_id
    return lambda fact, number: found[fact, number]


def write(model: LanguageModel, out: Path = OUT) -> int:
    """Write the file anew; returns how many cases it has."""
    cases = make_cases(model)
    lines = [json.dumps(case, ensure_ascii=True) + "\n" for case in cases]
    out.write_text("".join(lines), encoding="ascii")
    return len(cases)
