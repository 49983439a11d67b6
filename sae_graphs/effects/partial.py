"""`Partial`: layers that were measured, kept in a folder until the run is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from sae_graphs.checkpoint import Checkpoint
from sae_graphs.effects.arrays import Effects
from sae_graphs.effects.tensors import about_file, layer_tensors, read_layer, write_tensors

SCHEMA = "sae_graphs/partial/1"


class Partial(Checkpoint[int, list[Effects]]):
    """The layers of one run that are done, by depth: each the blocks that were measured of it."""

    pattern = "*.safetensors*"

    def file(self, depth: int) -> Path:
        """Where the effects of one layer lie."""
        return self.folder / f"layer-{depth}.safetensors"

    def key_in(self, depth: int) -> str | None:
        """The key that a layer's file carries."""
        about = about_file(self.file(depth))
        return about.get("run") if about.get("schema") == SCHEMA else None

    def load(self, depth: int) -> list[Effects]:
        """The blocks of one layer."""
        return list(read_layer(self.file(depth), depth))

    def save(self, depth: int, blocks: list[Effects], key: str) -> None:
        """Write one layer."""
        about = {"schema": SCHEMA, "run": key}
        write_tensors(self.file(depth), layer_tensors(depth, blocks), about)

    def layer(self, depth: int, measure: Callable[[], Iterator[Effects]]) -> Iterator[Effects]:
        """The effects of one layer: read where it is done, else measured, and then kept."""
        blocks = self.read(depth)
        if blocks:
            yield from blocks
            return
        blocks = []
        for block in measure():
            blocks.append(block)
            yield block
        self.write(depth, blocks)

    def blocks(self) -> Iterator[Effects]:
        """All effects again, layer by layer, once all are done."""
        for depth in self._names:
            yield from read_layer(self.file(depth), depth)
