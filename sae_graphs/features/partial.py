"""`ContextsPartial`: what a run found so far, kept beside the store until it is whole.

It is no `Checkpoint`, whose parts are done one after the other: here all layers grow together, and
each state takes the place of the last. One file of tensors per SAE, and a record that is written
last and names them: a crash leaves the earlier state, or the later one, never a mixture.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from filelock import Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from sae_graphs._version import __version__
from sae_graphs.checkpoint import WhileWritable, run_key
from sae_graphs.errors import SaeGraphsError
from sae_graphs.features.token_rows import Place
from sae_graphs.files import locked, write_atomically
from sae_graphs.model.instrument import InstrumentedModel, weights_of

SCHEMA = "sae_graphs/contexts-partial/3"
RECORD = "contexts.partial.json"
LOCK = "contexts.lock"
WORDS = {
    "sae_graphs": "it was made by another version",
    "model": "the model or the SAEs are others",
    "corpus": "the text is another",
    "settings": "the settings are others",
}


@contextmanager
def alone_with(files: Sequence[Path]) -> Iterator[None]:
    """No other run builds these stores meanwhile; `SaeGraphsError` where one is at it.

    What a run that was killed leaves of its lock does not count.
    """
    with ExitStack() as held:
        for path in sorted({file.with_name(LOCK) for file in files}):
            try:
                held.enter_context(locked(path, wait=False))
            except Timeout as problem:
                raise SaeGraphsError(
                    f"another run finds contexts for these SAEs: it holds {path}; wait until it is "
                    "done, or stop it"
                ) from problem
        yield


class Kept(NamedTuple):
    """Each layer's tensors by name, how far the texts were read, tokens run and tokens counted."""

    layers: list[dict[str, Tensor]]
    place: Place
    done: int
    counted: int


class ContextsPartial:
    """The state of one run, beside the `files` that its store will consist of.

    `facts` are plain values that determine what is found, as the model and its SAEs do.
    """

    def __init__(
        self, files: Sequence[Path], model: InstrumentedModel, facts: Mapping[str, Any]
    ) -> None:
        self._files, self._model, self._facts = list(files), model, facts
        self._step = 0
        self._writer = WhileWritable(self.record)

    @property
    def record(self) -> Path:
        """The record, beside the first layer's store."""
        return self._files[0].with_name(RECORD)

    def read(self) -> tuple[Kept | None, str | None]:
        """What an earlier run left, if it is this one's; else, where there is some, why not."""
        try:
            record = json.loads(self.record.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None, None
        except (OSError, ValueError):
            return None, "it is damaged"
        try:
            if record["schema"] != SCHEMA:
                return None, WORDS["sae_graphs"]
            mine = self._key
            others = [name for name in WORDS if record["run"][name] != mine[name]]
            if others:
                return None, WORDS[others[0]]
            step = int(record["step"])
            place = Place(**{**record["place"], "waiting": tuple(record["place"]["waiting"])})
            layers = [self._layer(file, step) for file in self._tensors(step)]
            kept = Kept(layers, place, int(record["done"]), int(record["counted"]))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            return None, "it is damaged"
        self._step = step
        return kept, None

    def write(self, kept: Kept) -> bool:
        """Keep a state in place of the one before; False where that fails, once and for all."""
        step = self._step + 1
        record = {
            "schema": SCHEMA,
            "run": self._key,
            "step": step,
            "place": kept.place._asdict(),
            "done": kept.done,
            "counted": kept.counted,
        }

        def write_step() -> None:
            for file, tensors in zip(self._tensors(step), kept.layers, strict=True):
                whole = {name: values.contiguous() for name, values in tensors.items()}
                about = {"run": json.dumps(self._key), "step": str(step)}
                write_atomically(file, safetensors_bytes(whole, metadata=about))
            write_atomically(self.record, json.dumps(record).encode())
            self._step = step

        return self._writer.write(write_step)

    def remove(self) -> None:
        """Delete all of it, once the store is in place."""
        for file in (self.record, *self._tensors(0), *self._tensors(1)):
            file.unlink(missing_ok=True)

    @cached_property
    def _key(self) -> dict[str, Any]:
        model = self._model
        facts = {
            "name": model.name,
            "device": str(model.model.cfg.device),
            "saes": [
                (layer.point.hook_name, str(layer.cfg.to_dict())) for layer in model.stack.layers
            ],
        }
        plain: dict[str, Any] = json.loads(json.dumps(dict(self._facts)))
        return {**plain, "sae_graphs": __version__, "model": run_key(facts, weights_of(model))}

    def _tensors(self, step: int) -> list[Path]:
        """Two sets of files take turns."""
        return [file.with_name(f"contexts.partial-{step % 2}.safetensors") for file in self._files]

    def _layer(self, file: Path, step: int) -> dict[str, Tensor]:
        with safe_open(file, framework="pt") as opened:
            about = opened.metadata() or {}
            if (about["run"], about["step"]) != (json.dumps(self._key), str(step)):
                raise ValueError(f"{file} is of another run")
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
