"""SAEs loaded on demand: never more than there is room for, and the same numbers."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from sae_lens import SAE

from sae_graphs.model.memory import SAESize
from sae_graphs.model.saes import RoomFor, SAEStack, stack_from
from sae_graphs.model.shelf import SAEShelf, SAESource
from sae_graphs.pretrained.find_saes import find_saes, load_stack
from tests.support.models import KINDS, STACKS, random_sae, save_saes
from tests.support.slow import first
from tests.support.stacks import cached, saes_on

# -- the shelf -------------------------------------------------------------------------------------


class Library:
    """Sources of SAEs that note what was loaded, and how many SAEs were alive by then."""

    def __init__(self, sizes: list[int], *, known: bool = True) -> None:
        self.loads: list[int] = []
        self.most_alive = 0
        self._alive: list[weakref.ref[Any]] = []
        self.sources = [
            SAESource(
                name=str(number),
                load=lambda number=number, size=size: self._load(number, size),  # type: ignore[misc]
                size=SAESize(size) if known else None,
            )
            for number, size in enumerate(sizes)
        ]

    def _load(self, number: int, size: int) -> Any:
        self.loads.append(number)
        sae = _Weights(size)
        self._alive.append(weakref.ref(sae))
        self.most_alive = max(self.most_alive, sum(ref() is not None for ref in self._alive))
        return sae


class _Weights:
    def __init__(self, size: int) -> None:
        self.size = size

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"W": torch.zeros(self.size, dtype=torch.int8)}


@pytest.fixture
def _no_collector() -> Iterator[None]:
    """What is let go of must be gone at once."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.usefixtures("_no_collector")
def test_two_at_a_time(known: bool) -> None:
    library = Library([10] * 4, known=known)
    shelf = SAEShelf(room=20)
    for number in (0, 1, 0, 1, 2, 3, 2, 1, 1):
        assert shelf.take(library.sources[number]) is shelf.take(library.sources[number])
        assert shelf.n_loaded <= 2
    assert library.loads == [0, 1, 2, 3, 1]
    assert library.most_alive == 2


def test_the_least_recently_used_goes_first() -> None:
    library = Library([10] * 4)
    shelf = SAEShelf(room=30)
    for number in (0, 1, 2, 0, 3, 0, 2, 1):
        shelf.take(library.sources[number])
    assert library.loads == [0, 1, 2, 3, 1]  # 3 puts out 1, and 1 puts out 3


def test_two_fit_however_little_room_there_is() -> None:
    library = Library([10] * 3)
    shelf = SAEShelf(room=0)
    for number in (0, 1, 0, 1, 0, 2, 0):
        shelf.take(library.sources[number])
    assert library.loads == [0, 1, 2]
    assert shelf.n_loaded == 2


def test_room_for_all_loads_each_once() -> None:
    library = Library([10, 20, 30])
    for room in (None, 60):
        shelf = SAEShelf(room)
        for number in (0, 1, 2, 0, 1, 2):
            shelf.take(library.sources[number])
        assert shelf.n_loaded == 3
    assert library.loads == [0, 1, 2, 0, 1, 2]


def test_less_room_lets_go_at_once() -> None:
    library = Library([10] * 5)
    shelf = SAEShelf()
    for source in library.sources:
        shelf.take(source)
    shelf.room = 35
    assert shelf.n_loaded == 3
    shelf.room = 0
    assert shelf.n_loaded == 2
    shelf.take(library.sources[4])
    shelf.take(library.sources[3])
    assert library.loads == [0, 1, 2, 3, 4]


def test_unknown_sizes_are_taken_to_be_alike() -> None:
    library = Library([10, 30, 20], known=False)
    shelf = SAEShelf()
    assert shelf.sizes(library.sources) == ()
    shelf.take(library.sources[0])
    assert shelf.sizes(library.sources) == (SAESize(10), SAESize(10), SAESize(10))
    shelf.take(library.sources[1])
    assert shelf.sizes(library.sources) == (SAESize(10), SAESize(30), SAESize(30))


# -- stacks ----------------------------------------------------------------------------------------


@pytest.fixture
def alive(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """After each load from a folder, how many of the SAEs loaded by then are still alive."""
    counts: list[int] = []
    loaded: list[weakref.ref[Any]] = []
    original = SAE.load_from_disk

    def load(*args: Any, **kwargs: Any) -> Any:
        sae = original(*args, **kwargs)
        loaded.append(weakref.ref(sae))
        counts.append(sum(ref() is not None for ref in loaded))
        return sae

    monkeypatch.setattr(SAE, "load_from_disk", load)
    return counts


def noting(seen: list[tuple[SAESize, ...]]) -> RoomFor:
    """Room for two, whatever their sizes."""

    def room_for(sizes: tuple[SAESize, ...]) -> int:
        seen.append(sizes)
        return 0

    return room_for


def two_at_a_time(folder: Path, **options: Any) -> SAEStack:
    return load_stack(folder, room_for=lambda sizes: 0, **options)


@pytest.mark.parametrize("kind", first(1, KINDS))
@pytest.mark.usefixtures("_no_collector")
def test_the_same_numbers_two_at_a_time(tmp_path: Path, kind: str, alive: list[int]) -> None:
    folder = save_saes(
        [random_sae(kind, hook, size=1.0, seed=n) for n, hook in enumerate(STACKS["pre"])], tmp_path
    )
    kept = load_stack(folder, dtype="float64")
    del alive[:]
    few = two_at_a_time(folder, dtype="float64")
    generator = torch.Generator().manual_seed(0)
    stream = torch.randn(5, 16, generator=generator, dtype=torch.float64)
    chosen = torch.tensor([3, 1, 30])
    for depth in (0, 1, 2, 3, 2, 0, 3, 1):
        one, two = kept.layers[depth], few.layers[depth]
        acts = one.encode(stream)
        assert torch.equal(two.encode(stream), acts)
        assert torch.equal(two.decode(acts, stream), one.decode(acts, stream))
        parts = [layer.decoder_of(chosen)(acts[:, chosen], stream) for layer in (one, two)]
        assert torch.equal(*parts)
        assert two.shelf.n_loaded <= 2
    assert max(alive) == 4 + 2  # those of `kept`, and never more than two besides
    assert len(alive) == 4 + 7  # each once to check it, then all but the second 2


@pytest.mark.usefixtures("_no_collector")
def test_questions_load_nothing(tmp_path: Path, alive: list[int]) -> None:
    stack = two_at_a_time(save_saes(saes_on(*STACKS["pre"]), tmp_path))
    assert len(alive) == 4
    assert max(alive) == 2
    assert stack.prepend_bos
    for layer, size in zip(stack.between("0", "3").layers, stack.sizes, strict=True):
        assert (layer.n_features, layer.d_in, layer.dtype) == (40, 16, torch.float32)
        assert layer.cfg.metadata.hook_name == layer.point.hook_name
        assert str(layer)
        assert size == SAESize(held=4 * (2 * 16 * 40 + 16 + 40))
    assert len(alive) == 4


@pytest.mark.parametrize("kind", first(1, KINDS))
@pytest.mark.usefixtures("_no_collector")
def test_a_decoder_keeps_nothing_of_the_sae(tmp_path: Path, kind: str) -> None:
    saes = [random_sae(kind, hook, size=1.0, seed=1) for hook in STACKS["pre"]]
    stack = two_at_a_time(save_saes(saes, tmp_path), dtype="float64")
    layer = stack.layers[0]
    held = [weakref.ref(layer.sae), *map(weakref.ref, layer.sae.parameters())]
    storage = layer.sae.W_enc.untyped_storage().data_ptr()
    decode = layer.decoder_of(torch.tensor([5, 2]))
    (cell,) = decode.__closure__ or ()
    part = weakref.ref(cell.cell_contents)
    kept = cell.cell_contents.parameters()
    assert storage not in {p.untyped_storage().data_ptr() for p in kept}
    del cell, kept
    for other in stack.layers[1:3]:
        other.encode(torch.zeros(1, 16, dtype=torch.float64))
    assert not any(ref() is not None for ref in held)
    stream, acts = torch.ones(3, 16, dtype=torch.float64), torch.ones(3, 2, dtype=torch.float64)
    first = decode(acts, stream)
    assert torch.equal(decode(acts, stream), first)  # and works on
    del decode
    assert part() is None


def test_objects_are_never_let_go() -> None:
    saes = saes_on(*STACKS["pre"])
    stack = stack_from(saes)
    assert [layer.sae for layer in stack.layers] == saes
    assert [layer.sae for layer in reversed(stack.layers)] == saes[::-1]


def test_sizes_in_another_precision(tmp_path: Path) -> None:
    """Stored in float32, wanted in bfloat16: half as large, and both at once while converting."""
    n_weights = 2 * 16 * 40 + 16 + 40
    seen: list[tuple[SAESize, ...]] = []
    folder = save_saes(saes_on(*STACKS["gap"]), tmp_path)
    load_stack(folder, dtype="bfloat16", room_for=noting(seen))
    assert set(seen) == {(SAESize(2 * n_weights, loading=4 * n_weights),) * 2}
    for layer in load_stack(folder, dtype="bfloat16").layers:
        assert layer.dtype == torch.bfloat16


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A sae-lens release in the hub's cache: 13 tiny SAEs under a real name."""
    import huggingface_hub.constants
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    name = "gpt2-small-res-jb"
    entry = get_pretrained_saes_directory()[name]
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for seed, (hook, path) in enumerate(entry.saes_map.items()):
        sae = random_sae("standard", hook, size=1.0, seed=seed, dtype="float32")
        sae.save_model(tmp_path / "content" / path)
    cached(tmp_path / "hub", entry.repo_id, tmp_path / "content")
    return name


@pytest.mark.usefixtures("_no_collector")
def test_a_release_two_at_a_time(release: str, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[Any]] = []
    original = SAE.from_pretrained

    def load(*args: Any, **kwargs: Any) -> Any:
        sae = original(*args, **kwargs)
        alive.append(weakref.ref(sae))
        assert sum(ref() is not None for ref in alive) <= 2
        return sae

    monkeypatch.setattr(SAE, "from_pretrained", load)
    size = SAESize(4 * (2 * 16 * 40 + 16 + 40))
    seen: list[tuple[SAESize, ...]] = []
    stack = load_stack(release, room_for=noting(seen))
    assert set(seen) == {(size,) * 13}  # from headers, before anything was loaded
    assert [layer.label for layer in stack.layers] == [str(n) for n in range(13)]
    assert stack.layers[12].neuronpedia_id == "gpt2-small/12-res-jb"
    assert len(alive) == 13
    for layer in stack.layers:
        layer.encode(torch.zeros(1, 16))
        assert layer.sae.cfg.metadata.neuronpedia_id == layer.neuronpedia_id
    assert len(alive) == 2 * 13


def test_sizes_of_a_release_that_is_not_downloaded(
    release: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    _, sources = find_saes(release, device="cpu", dtype="float32")
    assert [source.size for source in sources] == [None] * 13
