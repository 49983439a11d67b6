"""`SAEShelf`: loaded SAEs, as many as there is room for, the others loaded when asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_lens import SAE

from sae_graphs.model.memory import SAESize
from sae_graphs.model.stream import StreamPoint


@dataclass(frozen=True, eq=False)
class SAESource:
    """Where one SAE comes from. `load` reads its weights, each time it is called.

    `name` is how errors call it; `size` is None where it is not known before loading. `files` are
    those on the hub that `load` reads, `optional` those that it can do without; `size_here` tells
    the size from them once they are here, `size_to_fetch` from their sizes there. `trained_on` is
    the model as the release calls it. `point` is where the SAE stands, as far as names and files
    tell, and `label` what its layer is called where the whole stack is known; `width` tells how
    many dimensions it reads, once its configuration is here.
    """

    name: str
    load: Callable[[], SAE[Any]]
    folder: Path | None = None
    size: SAESize | None = None
    files: tuple[HubFile, ...] = ()
    optional: tuple[HubFile, ...] = ()
    size_here: Callable[[], SAESize | None] | None = None
    size_to_fetch: Callable[[dict[str, int]], SAESize | None] | None = None
    trained_on: str | None = None
    point: StreamPoint | None = None
    neuronpedia_id: str | None = None
    label: str | None = None
    width: Callable[[], int | None] | None = None


class SAEShelf:
    """Keeps SAEs loaded while they fit into `room` bytes; None is room for all.

    The least recently used one goes first, and before another is loaded. Two always fit: the one
    asked for and the one asked for before it.
    """

    def __init__(self, room: int | None = None) -> None:
        self._room = room
        self._loaded: dict[SAESource, SAE[Any]] = {}  # least recently used first
        self._sizes: dict[SAESource, SAESize] = {}

    @property
    def room(self) -> int | None:
        """Bytes for loaded SAEs. Lowering it lets go of what no longer fits."""
        return self._room

    @room.setter
    def room(self, room: int | None) -> None:
        self._room = room
        self._let_go(keep=2)

    @property
    def n_loaded(self) -> int:
        """How many SAEs are loaded now."""
        return len(self._loaded)

    def take(self, source: SAESource) -> SAE[Any]:
        """The SAE of a source, loaded unless it still is."""
        sae = self._loaded.pop(source, None)
        if sae is None:
            coming = self.sizes([*self._sizes, source])[-1:]  # empty before the first
            self._let_go(keep=1, coming=sum(size.held for size in coming))
            sae = source.load()
            self._sizes[source] = source.size or size_of(sae)
        self._loaded[source] = sae
        return sae

    def sizes(self, sources: Sequence[SAESource]) -> tuple[SAESize, ...]:
        """What each SAE takes; empty where none is known yet.

        One that is not known is taken to be as large as the largest that is.
        """
        known = [self._size(source) for source in sources]
        largest = max((size for size in known if size is not None), key=_held, default=None)
        return () if largest is None else tuple(size or largest for size in known)

    def _size(self, source: SAESource) -> SAESize | None:
        return source.size or self._sizes.get(source)

    def _let_go(self, *, keep: int, coming: int = 0) -> None:
        if self._room is None:
            return
        held = sum(self._sizes[source].held for source in self._loaded)
        for source in list(self._loaded)[: max(len(self._loaded) - keep, 0)]:
            if held + coming <= self._room:
                return
            del self._loaded[source]
            held -= self._sizes[source].held


def size_of(sae: SAE[Any]) -> SAESize:
    """What the weights of a loaded SAE take."""
    return SAESize(sum(w.numel() * w.element_size() for w in sae.state_dict().values()))


def _held(size: SAESize) -> int:
    return size.held


@dataclass(frozen=True)
class HubFile:
    """A file of a repository; `size` is None where it is not known."""

    repo_id: str
    name: str
    size: int | None = None
