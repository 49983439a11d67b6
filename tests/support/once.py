"""What a process of the tests does once, and each test or command would do again.

The commands' parser, a model that is loaded from a folder, the names of a bridge's hooks, whether
it is its plain model and can be run again, and whether its rows agree, asked of one prompt: again
where the folder, the bridge, its weights or the replay are others. What Graphviz makes of a source,
the plots that a report of validation makes of the same numbers, and what arguments a block or
an embedding of transformers takes. And fewer searches for garbage.
"""

from __future__ import annotations

import gc
import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar
from unittest import mock
from weakref import WeakKeyDictionary

import typer.main

OBJECTS = 50_000  # made between two searches for garbage, instead of 700

LARGEST = 500_000  # bytes of a picture that is kept

T = TypeVar("T")
_pictures: dict[tuple[str, ...], bytes] = {}
_plots: dict[tuple[str, ...], str | None] = {}


@contextmanager
def done_once() -> Iterator[None]:
    """While it is entered, what is the same for every test of this process is done once."""
    from transformer_lens.model_bridge import TransformerBridge
    from transformer_lens.model_bridge.generalized_components import block, embedding

    from sae_graphs.model import language_model
    from sae_graphs.pretrained import bridge
    from sae_graphs.render.picture import engine
    from sae_graphs.validation.report import content, reasons

    with (
        mock.patch.object(content, "noise_plot", _plotted(content.noise_plot)),
        mock.patch.object(reasons, "curve_plot", _plotted(reasons.curve_plot)),
        mock.patch.object(reasons, "keep_only_plot", _plotted(reasons.keep_only_plot)),
        mock.patch.object(reasons, "leave_one_out_plot", _plotted(reasons.leave_one_out_plot)),
        mock.patch.object(engine, "_rendered", _drawn(engine._rendered)),
        mock.patch.object(typer.main, "get_command", cache(typer.main.get_command)),
        mock.patch.object(bridge, "load_bridge", _loaded(bridge.load_bridge)),
        mock.patch.object(block, "inspect", _inspected()),
        mock.patch.object(embedding, "inspect", _inspected()),
        mock.patch.object(TransformerBridge, "hook_dict", _named(TransformerBridge.hook_dict)),
        mock.patch.object(language_model, "rows_agree", _asked(language_model.rows_agree)),
        mock.patch.object(
            language_model, "compare_with_plain", _compared(language_model.compare_with_plain)
        ),
        mock.patch.object(language_model, "check_replay", _passed(language_model.check_replay)),
        mock.patch.object(
            language_model, "check_left_to_right", _passed(language_model.check_left_to_right)
        ),
    ):
        yield


def drawn_anew(draw: Callable[[], T]) -> T:
    """What a function draws, by Graphviz and matplotlib themselves."""
    _pictures.clear()
    _plots.clear()
    return draw()


def _plotted(plot: Callable[..., str | None]) -> Callable[..., str | None]:
    """A report's plot, kept by all that is said of its numbers: they are records of plain ones."""

    def plotted(*numbers: Any) -> str | None:
        asked = plot.__name__, *map(repr, numbers)
        if asked not in _plots:
            _plots[asked] = plot(*numbers)
        return _plots[asked]

    return plotted


def _drawn(render: Callable[..., bytes]) -> Callable[..., bytes]:
    """A picture, kept by source, options and fonts: the package's, or those that a test chose."""

    def drawn(source: str, kind: str, arguments: str = "", *, engine: str = "dot") -> bytes:
        fonts = os.environ.get("FONTCONFIG_FILE", "")
        fonts = "ours" if "sae_graphs_fonts_" in fonts else fonts
        asked = source, kind, arguments, engine, fonts
        picture = _pictures.get(asked) or render(source, kind, arguments, engine=engine)
        if len(picture) <= LARGEST:
            _pictures[asked] = picture
        return picture

    return drawn


def state_of(model: Any) -> tuple[object, ...]:
    """Other than before, where a model was processed, or a weight or buffer changed or replaced.

    What is written in place through `.data` is not seen: no test may do that to a shared model.
    """
    owner = getattr(model, "original_model", model)  # of a bridge
    slots = (held for it in owner.modules() for held in (it._parameters, it._buffers))
    tensors = (tensor for held in slots for tensor in held.values() if tensor is not None)
    versions = tuple((tensor.data_ptr(), tensor._version) for tensor in tensors)
    done = tuple(getattr(model, it, None) for it in ("compatibility_mode", "_weights_processed"))
    return *done, model.training, versions


def _loaded(load: Callable[..., Any]) -> Callable[..., Any]:
    """A bridge from a folder; the same one as before, unless it was processed since.

    Tests that change its weights load one of their own.
    """
    bridges: dict[tuple[object, ...], Any] = {}

    def loaded(source: str, device: str, dtype: Any) -> Any:
        if not Path(source).is_dir():
            return load(source, device, dtype)
        files = sorted(file.stat().st_mtime_ns for file in Path(source).iterdir())
        key = str(Path(source).resolve()), tuple(files), device, dtype
        if key not in bridges or bridges[key].bridge.compatibility_mode:  # processed for its SAEs
            bridges[key] = load(source, device, dtype)
        return bridges[key]

    return loaded


def _inspected() -> SimpleNamespace:
    """`inspect` as a bridge's parts want it at every call, a tenth of what a small block takes."""
    known: dict[tuple[Any, bool], inspect.Signature] = {}

    def signature(of: Any) -> inspect.Signature:
        key = getattr(of, "__func__", of), hasattr(of, "__self__")
        if key not in known:
            known[key] = inspect.signature(of)
        return known[key]

    return SimpleNamespace(signature=signature, Parameter=inspect.Parameter)


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


def _compared(compare: Callable[[Any], Any]) -> Callable[[Any], Any]:
    known: WeakKeyDictionary[Any, tuple[object, Any]] = WeakKeyDictionary()

    def compared(model: Any) -> Any:
        state = state_of(model)
        if model not in known or known[model][0] != state:
            known[model] = state, compare(model)
        return known[model][1]

    return compared


def _passed(check: Callable[[Any, Any, str], None]) -> Callable[[Any, Any, str], None]:
    passed: WeakKeyDictionary[Any, set[object]] = WeakKeyDictionary()

    def checked(replay: Any, run: Any, name: str) -> None:
        known = passed.setdefault(replay.model, set())
        question = run.token_ids, type(replay).whole, *state_of(replay.model)
        if question not in known:
            check(replay, run, name)
            if replay.together:  # else it said that it is slower, and says so again
                known.add(question)

    return checked


def search_less() -> None:
    """What is there by now stays: searching it for garbage took a twentieth of all time."""
    gc.freeze()
    gc.set_threshold(OBJECTS, 20, 20)
    gc.enable()
