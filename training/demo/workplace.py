"""Where a build keeps its results and its progress."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.demo.plan import Plan


@dataclass(frozen=True)
class Workplace:
    """Where one build keeps its results and its progress."""

    out: Path
    plan: Plan

    @property
    def model(self) -> Path:
        """The Hugging Face folder of model and tokenizer."""
        return self.out / "model"

    @property
    def saes(self) -> Path:
        """The folder with one sub-folder per SAE."""
        return self.out / "saes"

    @property
    def progress(self) -> Path:
        """Notes, caches and checkpoints; not shipped."""
        return self.out / ".progress"

    @property
    def rows_file(self) -> Path:
        """The cached rows of tokens the model is trained on."""
        return self.progress / "model_rows.npy"

    @property
    def checkpoint_file(self) -> Path:
        """The state of an unfinished training of the model."""
        return self.progress / "model_checkpoint.safetensors"

    @property
    def unfinished_saes(self) -> Path:
        """Where sae-lens writes before the SAEs move to their place."""
        return self.progress / "saes"

    def note(self, stage: str) -> dict[str, Any] | None:
        """What stage `stage` noted when it was finished, or None."""
        path = self.progress / f"{stage}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def finish(self, stage: str, note: dict[str, Any]) -> None:
        """Marks `stage` as finished."""
        write_json(self.progress / f"{stage}.json", note)


def write_json(path: Path, data: object) -> None:
    """Writes `data` as JSON, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(path)
