"""`Plan`: which SAEs are trained, on how much text, for how long; and what that takes.

Letters: `T` tokens of a row, `D` d_model, `F` features, `L` SAEs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sae_graphs.errors import SaeGraphsError
from sae_graphs.files import write_atomically
from sae_graphs.model.stream import StreamPoint

SHARD_ROWS = 128  # rows of tokens whose activations one file holds
STORED_BYTES = 2  # of a value, in half precision
LEAST_TOKENS = 2_000  # fewer train nothing that could be called an SAE


@dataclass(frozen=True)
class Plan:
    """The recipe of a training. Lengths are in tokens unless the name says otherwise.

    `hook_names` are places in the residual stream; `context` is how many tokens a row of text has,
    BOS included; `active` is the k of TopK. Of the stream's positions the first of each row, and
    those whose norm is above `outlier` times the median, are left out.
    """

    hook_names: tuple[str, ...]
    tokens: int = 2_000_000
    held_out: int = 40_000
    context: int = 128
    features: int = 2048
    active: int = 32
    passes: float = 3
    rate: float = 1e-3
    batch: int = 2048
    outlier: float = 6.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.hook_names:
            raise SaeGraphsError("no layers are given; name one or more, such as --layers 0,5,10")
        points = self.points
        if len(set(points)) < len(points):
            raise SaeGraphsError(f"a layer is given twice in {', '.join(self.hook_names)}")
        for name, least in (("context", 2), ("features", 2), ("active", 1), ("batch", 1)):
            if getattr(self, name) < least:
                raise SaeGraphsError(f"{name} is {getattr(self, name)}; expected {least} or more")
        if self.active >= self.features:
            raise SaeGraphsError(
                f"{self.active} active features of {self.features}; expected fewer than there are"
            )
        if self.tokens < max(LEAST_TOKENS, self.batch):
            raise SaeGraphsError(
                f"{self.tokens:,} tokens are too few to train on; expected at least "
                f"{max(LEAST_TOKENS, self.batch):,}, better millions"
            )
        if self.passes <= 0 or self.rate <= 0 or self.outlier <= 1:
            raise SaeGraphsError("passes and rate must be above 0, and outlier above 1")

    @property
    def points(self) -> tuple[StreamPoint, ...]:
        """Where the SAEs stand."""
        return tuple(StreamPoint.parse(name) for name in self.hook_names)

    @property
    def rows(self) -> int:
        """Rows to train on, whole shards."""
        return _whole(self.tokens, self.context)

    @property
    def held_out_rows(self) -> int:
        """Rows to measure on, whole shards."""
        return _whole(self.held_out, self.context)

    @property
    def steps(self) -> int:
        """Steps of the training of each SAE."""
        return max(1, int(self.passes * self.tokens) // self.batch)

    def stored_bytes(self, width: int) -> int:
        """What the activations of a model of `width` dimensions take on the disk."""
        positions = (self.rows + self.held_out_rows) * (self.context - 1)
        return positions * width * len(self.hook_names) * STORED_BYTES

    def to_json(self) -> dict[str, Any]:
        """The recipe as JSON data."""
        held: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return held


def require_same(file: Path, facts: Mapping[str, Any], what: str) -> None:
    """Note facts of a stage in a file, or raise `SaeGraphsError` where it holds other ones."""
    wanted = json.loads(json.dumps(dict(facts)))
    if file.exists():
        try:
            held = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as problem:
            raise SaeGraphsError(
                f"cannot read {file} ({problem}); remove {file.parent}"
            ) from problem
        changed = [key for key in wanted if held.get(key) != wanted[key]]
        if changed:
            raise SaeGraphsError(
                f"{file.parent} holds {what} of another training (different: "
                f"{', '.join(changed)}); choose another --out, or remove that folder"
            )
        return
    write_atomically(file, json.dumps(wanted, indent=2).encode("utf-8"))


def _whole(tokens: int, context: int) -> int:
    """The rows of so many tokens, the first of each not counted, rounded up to whole shards."""
    rows = -(-tokens // (context - 1))
    return -(-rows // SHARD_ROWS) * SHARD_ROWS
