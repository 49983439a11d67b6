"""Facts of the invented world to be rewritten, in CounterFact's fields, and text of facts alone.

A case is a fact that the bundled model knows: asked in every template that names the subject before
the object, it says the object first. Its neighbours are other subjects with the same object, which
it knows as well, and what it is to retain the two other facts of the subject.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sae_graphs.model.language_model import LanguageModel
from training.demo.corpus.facts import TEMPLATES, Fact, Facts, world
from training.demo.corpus.words import article

OUT = Path("sae_graphs/editing/cases/demo.jsonl")
DEVELOPMENT = OUT.with_name("demo-development.jsonl")
TEXTS = OUT.with_name("demo-texts.json")
DOCUMENTS = 1600  # of facts alone, for the covariance
SEED, CASES = 7, 120
TUNED_ON = 20  # of them, for development
MOST_NEIGHBOURS, FEWEST_NEIGHBOURS = 6, 1
OPENINGS = {  # what is written on from: the subject, and nothing of a relation
    "city": ("The {s}", "Everybody knows the {s}."),
    "birthplace": ("{s}", "Everybody knows {s}."),
    "capital": ("In {s}", "Everybody knows {s}."),
}
KINDS = (
    ("city", "builder", "material"),
    ("birthplace", "job", "instrument"),
    ("capital", "language", "currency"),
)


def asked(relation: str, subject: str, object_: str) -> list[str]:
    """The prompts of a relation that name the subject, and end where the object follows."""
    found = []
    for template in TEMPLATES[relation]:
        before, _, after = template.partition("{o}")
        if "{s}" in before and after == ".":
            text = before.replace("{s}", subject).replace("{a}", article(object_))
            found.append(text.rstrip())
    return found


def make_cases(model: LanguageModel, *, count: int = CASES) -> list[dict[str, Any]]:
    """So many cases, relations in turn, drawn by the seed."""
    rng = random.Random(SEED)
    facts = list(world())
    known = {(fact.subject, fact.relation) for fact in facts if knows(model, fact)}
    by_relation = {
        relation: [it for it in facts if it.relation == relation] for relation in TEMPLATES
    }
    wanted = {name: rng.sample(those, len(those)) for name, those in by_relation.items()}
    cases: list[dict[str, Any]] = []
    while len(cases) < count and any(wanted.values()):
        for relation, rest in wanted.items():
            while rest and len(cases) < count:
                case = _case(model, rest.pop(), by_relation[relation], facts, known, rng)
                if case is not None:
                    cases.append({"case_id": len(cases), **case})
                    break
    return cases


def knows(model: LanguageModel, fact: Fact) -> bool:
    """Whether the model says the object's first token in all prompts, and that token shows it."""
    first = first_token(model, fact.object)
    if not model.token_string(first).strip():
        return False
    prompts = asked(fact.relation, fact.subject, fact.object)
    return all(int(model.run(prompt).logits[-1].argmax()) == first for prompt in prompts)


def first_token(model: LanguageModel, object_: str) -> int:
    """That of an object behind a space."""
    return model.tokenize(f" {object_}", prepend_bos=False)[0]


def _case(
    model: LanguageModel,
    fact: Fact,
    alike: Sequence[Fact],
    facts: Sequence[Fact],
    known: set[tuple[str, str]],
    rng: random.Random,
) -> dict[str, Any] | None:
    """None where the model does not know the fact, or no other subject has its object."""
    others = sorted(
        {
            it.object
            for it in alike
            if first_token(model, it.object) != first_token(model, fact.object)
            and model.token_string(first_token(model, it.object)).strip()
            and article(it.object) == article(fact.object)
        }
    )
    near = [it for it in alike if it.object == fact.object and it.subject != fact.subject]
    near = [it for it in near if (it.subject, it.relation) in known]
    if (fact.subject, fact.relation) not in known or len(near) < FEWEST_NEIGHBOURS or not others:
        return None
    new = rng.choice(others)
    prompts = asked(fact.relation, fact.subject, fact.object)
    patterns = asked(fact.relation, "{}", fact.object)
    chosen = rng.randrange(len(prompts))
    neighbours = [
        rng.choice(asked(it.relation, it.subject, it.object))
        for it in rng.sample(near, min(len(near), MOST_NEIGHBOURS))
    ]
    retained = [
        {"prompt": prompt, "target": it.object}
        for it in facts
        if it.subject == fact.subject
        and it.relation != fact.relation
        and (it.subject, it.relation) in known
        for prompt in asked(it.relation, it.subject, it.object)[:2]
    ]
    kind = next(relations[0] for relations in KINDS if fact.relation in relations)
    return {
        "requested_rewrite": {
            "prompt": patterns[chosen],
            "relation_id": fact.relation,
            "target_new": {"str": new},
            "target_true": {"str": fact.object},
            "subject": fact.subject,
        },
        "paraphrase_prompts": prompts[:chosen] + prompts[chosen + 1 :],
        "neighborhood_prompts": neighbours,
        "generation_prompts": [text.replace("{s}", fact.subject) for text in OPENINGS[kind]],
        "retention_prompts": retained,
    }


def split(cases: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Cases for development, `TUNED_ON` at most, and the others: no subject is in both."""
    of_subject = Counter(subject_of(case) for case in cases)
    chosen: set[str] = set()
    left = TUNED_ON
    for subject, count in of_subject.items():
        if count <= left:
            chosen.add(subject)
            left -= count
    return (
        [case for case in cases if subject_of(case) in chosen],
        [case for case in cases if subject_of(case) not in chosen],
    )


def subject_of(case: dict[str, Any]) -> str:
    """Whom a case is about."""
    return str(case["requested_rewrite"]["subject"])


def write_cases(cases: Sequence[dict[str, Any]], out: Path) -> None:
    """One line a case."""
    lines = [json.dumps(case, ensure_ascii=True) + "\n" for case in cases]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("".join(lines), encoding="ascii")


def write(model: LanguageModel) -> int:
    """Write the files anew, and the text that covariances are taken over; returns how many cases.

    Settings are chosen on the cases for development, which are in a file of their own.
    """
    cases = make_cases(model)
    development, reported = split(cases)
    write_cases(development, DEVELOPMENT)
    write_cases(reported, OUT)
    rng, facts = random.Random(SEED), Facts()
    texts = [facts.sample(rng) for _ in range(DOCUMENTS)]
    TEXTS.write_text(json.dumps(texts, indent=0) + "\n", encoding="ascii")
    return len(cases)
