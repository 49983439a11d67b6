"""What was measured, kept on disk: an interrupted run goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CACHE = HERE / ".cache"


class Progress:
    """Results by name. Other code, another machine or other settings begin from nothing."""

    def __init__(self, settings: dict[str, Any], *, cache: Path = CACHE) -> None:
        text = json.dumps([settings, _code()], sort_keys=True)
        self.file = cache / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
        self.found: dict[str, Any] = {}
        if self.file.is_file():
            self.found = json.loads(self.file.read_text())

    def keep(self, name: str, result: Any) -> None:
        """Add one result, and write all of them."""
        self.found[name] = result
        write_text(self.file, json.dumps(self.found))


def write_text(file: Path, text: str) -> None:
    """Write a file whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(file)


def _code() -> str:
    """A fingerprint of what is timed and of what times it."""
    digest = hashlib.sha256()
    for folder in (HERE, HERE.parent / "sae_graphs"):
        for file in sorted(folder.rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()
