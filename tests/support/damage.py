"""Ways to spoil a saved file of tensors, to see that what is read is checked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.numpy import load_file, save_file


def change(name: str, edit: Callable[[Any], Any]) -> Callable[[Path], None]:
    """One tensor becomes another; all else stays."""

    def damage(file: Path) -> None:
        with safe_open(file, framework="np") as held:
            about = held.metadata()
        tensors = {key: value.copy() for key, value in load_file(file).items()}
        tensors[name] = edit(tensors[name])
        save_file(tensors, file, metadata=about)

    return damage


def with_first(value: float) -> Callable[[Any], Any]:
    """A column whose first number is another."""

    def edit(column: Any) -> Any:
        column.reshape(-1)[0] = value
        return column

    return edit
