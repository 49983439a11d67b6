"""Many facts, each written alone into the model as it was, and what came of it. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sae_graphs.checkpoint import Checkpoint
from sae_graphs.editing.cases_file import FactCase
from sae_graphs.editing.scores import Scored
from sae_graphs.errors import SaeGraphsError
from sae_graphs.files import write_atomically
from sae_graphs.runs import EDITS
from sae_graphs.schema import plain, read_json, read_record, rebuilt

SCHEMA = "sae_graphs.edits/1"
FILE_NAME = EDITS
_REMEDY = "run the same command again"
Part = TypeVar("Part")


@dataclass(frozen=True)
class LeftOut:
    """A case that could not be written or asked, and why."""

    case_id: int
    asked: str
    reason: str


@dataclass(frozen=True)
class Edits:
    """Facts written one at a time into a model by one method. `settings` as they were asked for."""

    model: str
    cases: str
    method: str
    layer: int
    scored: tuple[Scored, ...]
    left_out: tuple[LeftOut, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    schema: str = SCHEMA


def load(path: str | Path) -> Edits:
    """From its file or folder; raises `GraphFileError` where it is damaged."""
    return read_record(Edits, path, FILE_NAME, holds="edits of many cases", remedy=_REMEDY)


def edit_cases(
    cases: Sequence[FactCase],
    score: Callable[[FactCase], Part],
    *,
    partial: EditsPartial | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Part | LeftOut]:
    """Every case written and asked; one that does not fit the model is told, the others go on."""
    found: list[Part | LeftOut] = []
    for number, case in enumerate(cases):
        held: Part | LeftOut | None = None if partial is None else partial.read(number)
        if held is None:
            try:
                held = score(case)
            except SaeGraphsError as problem:
                held = LeftOut(case.case_id, case.asked, " ".join(str(problem).split()))
            if partial is not None:
                partial.write(number, held)
        found.append(held)
        if progress is not None:
            progress(number + 1, len(cases))
    return found


class EditsPartial(Checkpoint[int, Any]):
    """The cases that are done, a file each: records of one `kind`, or `LeftOut`."""

    pattern = "*edit-*.json*"

    def __init__(
        self,
        folder: str | Path,
        kind: type = Scored,
        *,
        told: Callable[[int, int], None] | None = None,
    ) -> None:
        super().__init__(folder, told=told)
        self._kind = kind

    def file(self, name: int) -> Path:
        """Where a case lies, or would."""
        return self.folder / f"edit-{name:05d}.json"

    def key_in(self, name: int) -> str | None:
        """The key that its file carries."""
        key = self._held(name).get("key")
        return key if isinstance(key, str) else None

    def load(self, name: int) -> Any:
        """A case from its file."""
        part = self._held(name).get("part")
        kind = LeftOut if isinstance(part, dict) and "reason" in part else self._kind
        return rebuilt(kind, part, "a case", remedy=_REMEDY)

    def save(self, name: int, part: Any, key: str) -> None:
        """Write a case's file in one step."""
        data = json.dumps({"key": key, "part": plain(part)}).encode("ascii")
        write_atomically(self.file(name), data)

    def _held(self, name: int) -> dict[str, Any]:
        held = read_json(self.file(name), give="a case", remedy=_REMEDY)
        return held if isinstance(held, dict) else {}
