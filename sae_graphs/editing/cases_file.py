"""Facts to be written, and what to ask afterwards: JSONL in CounterFact's fields. Torch-free.

One line a case, as published (Meng et al. 2022): `case_id`; `requested_rewrite` with `prompt`,
`subject`, `target_new` and `target_true`; `paraphrase_prompts`; `neighborhood_prompts`;
`generation_prompts`. Beside these a case may have `retention_prompts`, each `{"prompt": ...,
"target": ...}`: what else is true of the same subject. Other fields are passed over.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_graphs.errors import SaeGraphsError
from sae_graphs.tracing.cases_file import each_case, json_lines, names_in, text_of_cases
from sae_graphs.words import said

FOLDER = Path(__file__).parent / "cases"


@dataclass(frozen=True)
class Retained:
    """Something else that is true of the subject: a prompt, and how it goes on."""

    prompt: str
    target: str


@dataclass(frozen=True)
class FactCase:
    """A fact to be written into a model, and what is asked before and after.

    `prompt` has `{}` where the `subject` goes. `new` is to follow it in place of `true`, both with
    their leading space. Paraphrases ask for the same fact; neighbours for that of other subjects,
    of which `true` is true.
    """

    case_id: int
    subject: str
    prompt: str
    new: str
    true: str
    paraphrases: tuple[str, ...] = ()
    neighbours: tuple[str, ...] = ()
    generation: tuple[str, ...] = ()
    retained: tuple[Retained, ...] = ()

    def __post_init__(self) -> None:
        if self.prompt.count("{}") != 1:
            raise SaeGraphsError(f"the prompt {said(self.prompt)} needs {{}} once, for the subject")
        if not self.subject.strip():
            raise SaeGraphsError("the subject is empty; give some text")
        if self.new.strip() == self.true.strip() or not self.new.strip():
            raise SaeGraphsError(
                f"the targets are {said(self.new)} and {said(self.true)}; give two different ones"
            )

    @property
    def asked(self) -> str:
        """The prompt with the subject in it."""
        return self.prompt.replace("{}", self.subject)


def check_has_s(cases: Sequence[FactCase]) -> None:
    """Raise `SaeGraphsError` where no case has both paraphrases and neighbours, of which S is."""
    if not any(case.paraphrases and case.neighbours for case in cases):
        raise SaeGraphsError(
            "there is no S without paraphrases and neighbours; give a case paraphrase_prompts and "
            "neighborhood_prompts"
        )


def bundled() -> tuple[str, ...]:
    """The names of the case files inside the package."""
    return names_in(FOLDER, ".jsonl")


def read_cases(file: str | Path) -> tuple[FactCase, ...]:
    """The cases of a file, or of one inside the package, by its name.

    A JSON file may hold CounterFact's list. Raises `SaeGraphsError` with the line's number where
    one is none.
    """
    give = "a JSONL file in CounterFact's fields"
    _, text = text_of_cases(file, FOLDER, ".jsonl", give=give)
    listed = text.lstrip().startswith("[")
    rows = enumerate(_list(text, file), start=1) if listed else json_lines(text, file)
    numbers = itertools.count()
    found = each_case(
        rows,
        lambda row: _case(row, next(numbers)),
        file,
        expected="lines in CounterFact's fields",
        called="case" if listed else "line",
    )
    ids = [case.case_id for case in found]
    if len(set(ids)) < len(ids):
        raise SaeGraphsError(f"{file} has a case_id twice; give each case its own")
    return tuple(found)


def _list(text: str, file: str | Path) -> list[Any]:
    try:
        found: list[Any] = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise SaeGraphsError(f"{file} is no JSON ({problem})") from problem
    return found


def _case(row: Any, number: int) -> FactCase:
    if not isinstance(row, dict) or not isinstance(row.get("requested_rewrite"), dict):
        raise SaeGraphsError("requested_rewrite is missing; expected CounterFact's fields")
    asked = row["requested_rewrite"]
    new, true = (spaced(_text(_of(asked, it), "str")) for it in ("target_new", "target_true"))
    retained = row.get("retention_prompts", [])
    if not isinstance(retained, list) or not all(isinstance(it, dict) for it in retained):
        raise SaeGraphsError("retention_prompts are no list of prompt and target")
    case_id = row.get("case_id", number)
    if isinstance(case_id, bool) or not isinstance(case_id, int):
        raise SaeGraphsError(f"case_id is {case_id!r:.40}, expected a whole number")
    return FactCase(
        case_id,
        _text(asked, "subject"),
        _text(asked, "prompt"),
        new,
        true,
        _texts(row, "paraphrase_prompts"),
        _texts(row, "neighborhood_prompts"),
        _texts(row, "generation_prompts"),
        tuple(Retained(_text(it, "prompt"), spaced(_text(it, "target"))) for it in retained),
    )


def spaced(target: str) -> str:
    """A target with a space before it: CounterFact leaves it out."""
    return target if target[:1].isspace() else f" {target}"


def _of(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = row.get(name)
    if not isinstance(found, dict):
        raise SaeGraphsError(f"{name} is {found!r:.40}, expected its text as `str`")
    return found


def _text(row: Mapping[str, Any], name: str) -> str:
    found = row.get(name)
    if not isinstance(found, str) or not found:
        raise SaeGraphsError(f"{name} is {found!r:.40}, expected a text")
    return found


def _texts(row: Mapping[str, Any], name: str) -> tuple[str, ...]:
    found = row.get(name, [])
    if not isinstance(found, list) or not all(isinstance(it, str) and it for it in found):
        raise SaeGraphsError(f"{name} is {found!r:.40}, expected a list of texts")
    return tuple(found)
