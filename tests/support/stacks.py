"""Small SAEs for tests that load them, and what every refusal must look like."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from sae_graphs.errors import SaeGraphsError
from tests.support.models import random_sae


def saes_on(*hooks: str, **metadata: Any) -> list[Any]:
    return [
        random_sae("standard", hook, size=1.0, seed=seed, dtype="float32", **metadata)
        for seed, hook in enumerate(hooks)
    ]


def one_line(caught: pytest.ExceptionInfo[SaeGraphsError]) -> str:
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 600
    return text


def cached(cache: Path, repo_id: str, content: Path) -> None:
    """A folder as the hub's cache holds a repository that has been downloaded."""
    repository = cache / f"models--{repo_id.replace('/', '--')}"
    commit = "0" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(content, repository / "snapshots" / commit)
