"""What a process of the tests does once, and a command or a test would do each time.

The commands' parser, the bundled model in memory, the names of a bridge's hooks, and whether a
bridge's rows agree, asked of one prompt. What is asked of a bridge is asked again once it changes.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock
from weakref import WeakKeyDictionary

import typer.main

OFTEN = 20_000  # objects made between two searches for garbage, instead of 700

parser = cache(typer.main.get_command)
_bridges: dict[tuple[object, ...], Any] = {}


@contextmanager
def once_a_command() -> Iterator[None]:
    """Commands in this process share a parser, and the models that they load from folders."""
    from sae_graphs.pretrained import bridge

    with (
        mock.patch.object(typer.main, "get_command", parser),
        mock.patch.object(bridge, "load_bridge", _shared(bridge.load_bridge)),
    ):
        yield


def _shared(load: Callable[..., Any]) -> Callable[..., Any]:
    """Load a bridge from a folder once, as long as nothing in the folder and in it changes."""

    def loaded(source: str, device: str, dtype: Any) -> Any:
        if not Path(source).is_dir():
            return load(source, device, dtype)
        files = sorted(file.stat().st_mtime_ns for file in Path(source).iterdir())
        key = str(Path(source).resolve()), tuple(files), device, dtype
        if key not in _bridges or _bridges[key].compatibility_mode:  # processed for its SAEs
            _bridges[key] = load(source, device, dtype)
        return _bridges[key]

    return loaded


@contextmanager
def once_a_bridge() -> Iterator[None]:
    """Hooks are named once, and rows that agreed on a prompt are not asked about it again."""
    from transformer_lens.model_bridge import TransformerBridge

    from sae_graphs.model import language_model

    with (
        mock.patch.object(TransformerBridge, "hook_dict", _named(TransformerBridge.hook_dict)),
        mock.patch.object(language_model, "rows_agree", _asked(language_model.rows_agree)),
    ):
        yield


def _named(hook_dict: property) -> property:
    held: WeakKeyDictionary[Any, tuple[object, dict[str, Any]]] = WeakKeyDictionary()

    def named(bridge: Any) -> dict[str, Any]:
        state = bridge.compatibility_mode, tuple(bridge._hook_registry.items())
        if bridge not in held or held[bridge][0] != state:
            held[bridge] = state, hook_dict.__get__(bridge)
        return dict(held[bridge][1])

    return property(named)


def _asked(rows_agree: Callable[..., bool]) -> Callable[..., bool]:
    from sae_graphs.model import replay as replays

    agreed: WeakKeyDictionary[Any, set[object]] = WeakKeyDictionary()

    def asked(replay: Any, run: Any, name: str, *, n_rows: int) -> bool:
        known = agreed.setdefault(replay.model, set())
        how = replays.run_rows, getattr(replay.model, "compatibility_mode", None)
        question = run.token_ids, n_rows, *how
        if question not in known:
            if not rows_agree(replay, run, name, n_rows=n_rows):
                return False
            known.add(question)
        return True

    return asked


def less_garbage() -> None:
    """What is imported stays; searching all of it again and again took a twentieth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(OFTEN, 20, 20)
