"""Real facts that SmolLM2 knows, to be rewritten, in CounterFact's fields.

A fact is taken where the model says the object's first token after the prompt; neighbours, other
subjects of which the same object is true, and what the subject is to retain, where it does so too.
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
AT = "The {} is located in the city of"
TEMPLATES = {
    "city": (AT, "The {} can be visited in the city of", "To see the {}, travel to the city of"),
    "capital": (
        "The capital of {} is",
        "The capital city of {} is",
        "The government of {} sits in",
    ),
    "language": (
        "The official language of {} is",
        "Most people in {} speak",
        "The national language of {} is",
    ),
}
OPENINGS = {
    "city": ("The {} is", "Visitors of the {}"),
    "capital": ("{} is a country", "People who travel to {}"),
    "language": ("{} is a country", "People who travel to {}"),
}
PLACES = {
    "Paris": ("Eiffel Tower", "Louvre", "Arc de Triomphe", "Notre-Dame Cathedral"),
    "Rome": ("Colosseum", "Pantheon", "Trevi Fountain", "Spanish Steps"),
    "Berlin": ("Brandenburg Gate", "Reichstag", "Pergamon Museum"),
    "Moscow": ("Kremlin", "Bolshoi Theatre", "Saint Basil's Cathedral"),
    "Athens": ("Acropolis", "Parthenon", "Temple of Olympian Zeus"),
    "Beijing": ("Forbidden City", "Temple of Heaven", "Summer Palace"),
    "London": ("Tower Bridge", "British Museum", "Palace of Westminster"),
    "Tokyo": ("Senso-ji temple", "Imperial Palace", "Meiji Shrine"),
    "Madrid": ("Prado Museum", "Puerta del Sol"),
    "Vienna": ("Hofburg", "Belvedere Palace"),
}
CAPITALS = {
    **{"France": "Paris", "Italy": "Rome", "Germany": "Berlin", "Russia": "Moscow"},
    **{"Greece": "Athens", "China": "Beijing", "Japan": "Tokyo", "Spain": "Madrid"},
    "Austria": "Vienna",
}
LANGUAGES = {
    "Spanish": ("Mexico", "Spain", "Argentina", "Colombia", "Peru", "Chile"),
    "German": ("Germany", "Austria"),
    "French": ("France", "Senegal"),
    "Italian": ("Italy", "San Marino"),
    "Portuguese": ("Portugal", "Brazil"),
}


class Fact(NamedTuple):
    """What is true, and of which kind."""

    kind: str
    subject: str
    object: str


def facts() -> list[Fact]:
    """All that may be rewritten, kinds in turn."""
    places = [Fact("city", it, city) for city, those in PLACES.items() for it in those]
    capitals = [Fact("capital", it, city) for it, city in CAPITALS.items()]
    spoken = [Fact("language", it, said) for said, those in LANGUAGES.items() for it in those]
    return [*capitals, *places, *spoken]


def make_cases(model: LanguageModel, *, count: int = CASES) -> list[dict[str, Any]]:
    """So many cases, kinds in turn, each with a neighbour and a paraphrase."""
    known = _known(model, facts())
    left = [fact for fact in facts() if known(fact, 0)]
    kinds = {kind: [it for it in left if it.kind == kind] for kind in TEMPLATES}
    cases: list[dict[str, Any]] = []
    while len(cases) < count and any(kinds.values()):
        for those in kinds.values():
            while those and len(cases) < count:
                case = _case(those.pop(0), left, known)
                if case is not None:
                    cases.append({"case_id": len(cases), **case})
                    break
    return cases


def _case(
    fact: Fact, all_known: list[Fact], known: Callable[[Fact, int], bool]
) -> dict[str, Any] | None:
    near = [it for it in all_known if it.object == fact.object and it.subject != fact.subject]
    near = [it for it in near if it.kind != "capital" or fact.kind != "capital"]
    others = list(PLACES) if fact.kind != "language" else list(LANGUAGES)
    new = others[(others.index(fact.object) + 3) % len(others)]
    paraphrases = [
        template.format(fact.subject)
        for number, template in enumerate(TEMPLATES[fact.kind])
        if number and known(fact, number)
    ]
    if not near or not paraphrases:
        return None
    retained = [
        {"prompt": TEMPLATES[it.kind][0].format(it.subject), "target": it.object}
        for it in all_known
        if it.subject == fact.subject and it.kind != fact.kind
    ]
    return {
        "requested_rewrite": {
            "prompt": TEMPLATES[fact.kind][0],
            "relation_id": fact.kind,
            "target_new": {"str": new},
            "target_true": {"str": fact.object},
            "subject": fact.subject,
        },
        "paraphrase_prompts": paraphrases,
        "neighborhood_prompts": [TEMPLATES[it.kind][0].format(it.subject) for it in near[:6]],
        "generation_prompts": [it.format(fact.subject) for it in OPENINGS[fact.kind]],
        "retention_prompts": retained,
    }


def _known(model: LanguageModel, those: list[Fact]) -> Callable[[Fact, int], bool]:
    """Whether the model says a fact's object first after one of its kind's prompts."""
    asked = [(fact, number) for fact in those for number in range(len(TEMPLATES[fact.kind]))]
    found: dict[tuple[Fact, int], bool] = {}
    for start in range(0, len(asked), 16):
        part = asked[start : start + 16]
        prompts = [TEMPLATES[fact.kind][number].format(fact.subject) for fact, number in part]
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
