"""`Edit`: a fact written into a model, as data: two vectors, and what they fit. Torch-free.

Letters: `D` d_model, `F` inputs of the projection.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as safetensors_bytes

from sae_graphs.editing.settings import EditSettings
from sae_graphs.errors import GraphFileError, SaeGraphsError
from sae_graphs.files import save_at
from sae_graphs.late import view
from sae_graphs.runs import EDIT
from sae_graphs.schema import plain, rebuilt
from sae_graphs.words import probability, said

SCHEMA = "sae_graphs.edit/1"
FILE_NAME = EDIT
Vector = NDArray[np.float64]
_REMEDY = "make the edit again"


@dataclass(frozen=True)
class Answer:
    """What the model says after the prompt: the target's probability, and the likeliest tokens."""

    probability: float
    next_tokens: tuple[tuple[str, float], ...]

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1 or not self.next_tokens:
            raise SaeGraphsError(f"no answer: {self!r:.80}")


@dataclass(frozen=True, eq=False)
class Edit:
    """A fact written into the MLP of block `layer`: the outer product of `right` and `left` added.

    `right` `[D]` is v* - W k*, what the MLP's output at the key gains; `left` `[F]` is C^-1 k*,
    over what makes the key give just that. `weights` stands for the matrix that they fit. `prompt`
    has `{}` where the `subject` goes; `target` is the one token that was written. `before` and
    `after` are the model's answers to the prompt; `surprisal` is the target's in nats, a step of
    the search for the value each, its mean over prefixes.
    """

    subject: str
    prompt: str
    target: str
    target_id: int
    model: str
    layer: int
    weights: str
    right: Vector
    left: Vector
    settings: EditSettings
    before: Answer
    after: Answer
    surprisal: tuple[float, ...]
    warnings: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)  # covariance, norms, seconds, versions

    def __post_init__(self) -> None:
        for name in ("right", "left"):
            vector = getattr(self, name)
            if vector.ndim != 1 or not len(vector) or not np.isfinite(vector).all():
                raise SaeGraphsError(f"{name} of the edit is no vector of finite numbers")

    def __repr__(self) -> str:
        told = f"{probability(self.before.probability)} to {probability(self.after.probability)}"
        return (
            f"<Edit of {self.model!r:.40}, block {self.layer}: {self.asked!r:.60} "
            f"{said(self.target)}, {told}>"
        )

    @property
    def asked(self) -> str:
        """The prompt with the subject in it."""
        return self.prompt.replace("{}", self.subject)

    @property
    def shape(self) -> tuple[int, int]:
        """That of the matrix which is changed, `[D, F]`."""
        return len(self.right), len(self.left)

    def applied(self, model: Any) -> AbstractContextManager[None]:
        """The model edited, while the context is open; then undone to the last bit.

            with edit.applied(model):
                model.run("The Eiffel Tower is in the city of")

        `model` is a `LanguageModel`, its bridge, or a plain transformers model of the same weights.
        Raises `SaeGraphsError` where the edit was made for other weights.
        """
        found: AbstractContextManager[None] = view("applied_edit")(model, self)
        return found

    def save(self, path: str | Path) -> Path:
        """Write the edit in one step, into a folder or to a file; returns the file."""
        return save_at(path, FILE_NAME, to_bytes(self))

    @classmethod
    def load(cls, path: str | Path) -> Edit:
        """Read an edit from a file, or from the folder that it was written into.

        Raises `GraphFileError` where there is none, or where it is damaged or of another kind.
        """
        return load(path)


VECTORS = ("right", "left")


def to_bytes(edit: Edit) -> bytes:
    """The contents of `edit.safetensors`: two vectors, and all else as JSON beside them."""
    told = plain(edit, {np.ndarray: len})
    kept = {name: value for name, value in told.items() if name not in VECTORS}
    about = {"schema": SCHEMA, "edit": json.dumps(kept)}
    held = {name: np.ascontiguousarray(getattr(edit, name)) for name in VECTORS}
    return bytes(safetensors_bytes(held, metadata=about))


def load(path: str | Path) -> Edit:
    """The edit in a file, or in the folder that it was written into."""
    file = Path(path)
    if file.is_dir():
        file = file / FILE_NAME
    try:
        with safe_open(file, "numpy") as held:
            about = held.metadata() or {}
            if about.get("schema") != SCHEMA:
                raise GraphFileError(f"{file} holds no edit; give a file that an edit was saved in")
            vectors = {name: held.get_tensor(name).astype(np.float64) for name in VECTORS}
    except OSError as problem:
        raise GraphFileError(
            f"cannot read {file}: {problem.strerror or 'unreadable'}; give a file that an edit was "
            "saved in"
        ) from problem
    except SafetensorError as problem:
        raise GraphFileError(f"{file} is damaged: {problem}; {_REMEDY}") from problem
    try:
        told = json.loads(about["edit"])
        return _rebuilt(told, vectors, str(file))
    except (ValueError, KeyError, RecursionError) as problem:
        raise GraphFileError(f"{file} is damaged: {problem}; {_REMEDY}") from problem


def _rebuilt(told: Any, vectors: Mapping[str, Vector], where: str) -> Edit:
    if not isinstance(told, dict):
        raise GraphFileError(f"{where} is damaged: {told!r:.40} is no edit; {_REMEDY}")
    kept = {each.name for each in fields(Edit)} - set(VECTORS)
    if told.keys() != kept:
        raise GraphFileError(f"{where} is damaged: it lacks fields, or has others; {_REMEDY}")
    read = {Vector: lambda name: vectors[name]}
    edit: Edit = rebuilt(
        Edit, {**told, **{name: name for name in VECTORS}}, where, read, remedy=_REMEDY
    )
    return edit
