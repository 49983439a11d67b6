"""The pairs of an interrupted run that were tested, kept until it is done. Torch-free."""

from __future__ import annotations

import json
from pathlib import Path

from sae_graphs.checkpoint import Checkpoint
from sae_graphs.editing.granger.records import Pair
from sae_graphs.files import write_atomically
from sae_graphs.schema import plain, read_json, rebuilt

TOGETHER = 50  # pairs of a file
_REMEDY = "test the pairs again"


class PairsPartial(Checkpoint[int, tuple[Pair, ...]]):
    """So many pairs a file, without q, which is over all of them."""

    pattern = "*pairs-*.json*"

    def file(self, name: int) -> Path:
        """Where a stretch of pairs lies, or would."""
        return self.folder / f"pairs-{name:04d}.json"

    def key_in(self, name: int) -> str | None:
        """The key that its file carries."""
        held = read_json(self.file(name), give="tested pairs", remedy=_REMEDY)
        key = held.get("key") if isinstance(held, dict) else None
        return key if isinstance(key, str) else None

    def load(self, name: int) -> tuple[Pair, ...]:
        """A stretch of pairs from its file."""
        held = read_json(self.file(name), give="tested pairs", remedy=_REMEDY)
        part = held.get("pairs") if isinstance(held, dict) else None
        found: tuple[Pair, ...] = rebuilt(tuple[Pair, ...], part, "tested pairs", remedy=_REMEDY)
        return found

    def save(self, name: int, part: tuple[Pair, ...], key: str) -> None:
        """Write a stretch of pairs in one step."""
        data = json.dumps({"key": key, "pairs": plain(part)}).encode("ascii")
        write_atomically(self.file(name), data)
