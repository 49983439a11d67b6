"""How much of a streamed corpus is read, and how much at once."""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from sae_graphs.errors import SaeGraphsError
from sae_graphs.features import batches as row_batches
from sae_graphs.features.batches import Pace, _rows
from sae_graphs.features.contexts import store_file
from sae_graphs.features.layer_store import LayerStore
from sae_graphs.features.partial import ContextsPartial
from sae_graphs.features.store import stream_store
from sae_graphs.features.token_rows import Place, TokenRows, passed
from sae_graphs.model.instrument import InstrumentedModel
from tests.support.effect_graphs import effect_graph
from tests.support.models import CORPUS, PROMPT
from tests.support.slow import first
from tests.support.stacks import one_line
from tests.support.streamed import TEXTS, Heard, Stopped, contents, left_over, until, whole

# -- reading ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", first(3, [1, 31, 32, 33, 100]))
def test_so_many_tokens_are_read_and_no_more(model: InstrumentedModel, n: int) -> None:
    heard, read = Heard(), itertools.count()

    def texts() -> Iterator[str]:
        for text in itertools.cycle(TEXTS):  # no end
            next(read)
            yield text

    stream_store(model, texts, tokens=n, told=heard.told)
    assert heard.read[-1] == 32 * -(-n // 32)  # whole rows of the model's 32 tokens
    assert next(read) < 40
    with safe_open(store_file(model, model.stack.layers[0]), "pt") as store:
        assert store.metadata()["tokens_seen"] == str(heard.read[-1] // 32 * 31)


def test_fewer_tokens_than_asked_for(model: InstrumentedModel) -> None:
    stream_store(model, whole(), tokens=10**9)
    expected = contents(model)
    stream_store(model, whole())
    assert contents(model) == expected


def test_no_tokens(model: InstrumentedModel) -> None:
    for n in (0, -1):
        with pytest.raises(SaeGraphsError, match="expected at least 1") as caught:
            stream_store(model, whole(), tokens=n)
        one_line(caught)
    with pytest.raises(SaeGraphsError, match="empty"):
        stream_store(model, whole(["", ""]))
    assert not store_file(model, model.stack.layers[0]).exists()
    assert left_over(model) == []


HOSTILE = ["\x00", "\ud800 half", "\u202e<bos><eos>", "\x1b[31m", "ﷺ" * 50, "\r\n\t ", "😀" * 99]


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize(("times", "stop"), first(1, [(3, 12), (5, 20)]))
def test_hostile_texts(model: InstrumentedModel, times: int, stop: int) -> None:
    with pytest.raises(Stopped):
        stream_store(model, until(stop, HOSTILE * times))
    heard = Heard()
    stream_store(model, whole(HOSTILE * times), told=heard.told)
    assert heard.resumed
    resumed = contents(model)
    stream_store(model, whole(HOSTILE * times))
    assert contents(model) == resumed


@pytest.mark.parametrize("taken", [1, 2, 5])
def test_reading_goes_on_at_a_place(tiny: InstrumentedModel, taken: int) -> None:
    reader = TokenRows(tiny, TEXTS, length=9)
    first = [reader.take(1) for _ in range(taken)]
    place = reader.place
    rest = reader.take(1000)
    assert place.rows == taken and all(row is not None for row in first)
    texts = iter(TEXTS)
    assert passed(texts, place)
    after = TokenRows(tiny, texts, length=9, place=place)
    again = after.take(1000)
    assert rest is not None and again is not None and torch.equal(rest, again)
    assert after.take(1) is None
    assert not passed(iter(["other", *TEXTS[1:]][: place.texts - 1]), place)
    assert passed(iter([]), Place())


@pytest.mark.slow
def test_one_long_text_is_cut_in_good_time(tiny: InstrumentedModel) -> None:
    reader = TokenRows(tiny, [CORPUS * 4000], length=9)  # 120,000 tokens
    rows = 0
    while (batch := reader.take(64)) is not None:
        rows += len(batch)
    assert rows > 10_000


# -- how much at once ------------------------------------------------------------------------------


def test_a_stores_size() -> None:
    store = LayerStore.empty(123)
    held = sum(values.numel() * values.element_size() for values in store.tensors().values())
    assert LayerStore.size(123) == held
    assert 13 * LayerStore.size(24576) < 330e6  # all of gpt2-small-res-jb


def test_too_little_memory_is_said_before_the_work(model: InstrumentedModel) -> None:
    model.working_memory = 2**20
    with pytest.raises(SaeGraphsError, match=r"give \d+MiB more \(--memory\)") as caught:
        stream_store(model, until(0))
    one_line(caught)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_said_before_the_work(model: InstrumentedModel) -> None:
    folder = store_file(model, model.stack.layers[1]).parent
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(SaeGraphsError, match="cannot write into") as caught:
            stream_store(model, until(0))
    finally:
        folder.chmod(stat.S_IRWXU)
    one_line(caught)


def test_a_store_in_the_way_is_said_before_the_work(
    tiny: InstrumentedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "cache"))
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SaeGraphsError, match="cannot write into") as caught:
        stream_store(tiny, until(0))
    one_line(caught)


def test_saes_are_loaded_once_a_batch(model: InstrumentedModel) -> None:
    stream_store(model, whole())
    expected = contents(model)
    shelf = model.stack.layers[0].shelf
    loads = []
    take = shelf.take

    def counted(source: object) -> object:
        before = source in shelf._loaded
        found = take(source)  # type: ignore[arg-type]
        loads.append(not before)
        return found

    shelf.take = counted  # type: ignore[method-assign]
    shelf.room = 0  # two at a time
    heard = Heard()
    stream_store(model, whole(), told=heard.told)
    layers = len(model.stack.layers)
    assert shelf.n_loaded == 2
    assert sum(loads) <= layers * (len(heard.read) + 1)  # and once to tell them apart, at the end
    assert sum(loads) > layers
    assert contents(model) == expected


@pytest.mark.parametrize(("n", "rows"), [(0, 1), (1, 1), (3, 2), (31, 16), (32, 32), (999, 32)])
def test_rows_at_once(n: int, rows: int) -> None:
    assert _rows(n) == rows


def test_batches_take_some_seconds(tiny: InstrumentedModel) -> None:
    pace = Pace(tiny, 32)
    assert pace.rows == pace.least == 32
    assert pace.next(1.0) == 2.0 and pace.rows == 64
    assert pace.next(15.0) == 15.0 and pace.rows == 64
    assert pace.next(40.0) == 20.0 and pace.rows == 32
    assert pace.next(99.0) == 99.0 and pace.rows == 32  # never below what is run at once
    for _ in range(10):
        pace.next(1.0)
    assert pace.rows == pace.most == row_batches.MOST_ROWS
    small = Pace(tiny, 32)
    tiny_memory, tiny.working_memory = tiny.working_memory, 2**10
    try:
        assert Pace(tiny, 32).most == small.least
    finally:
        tiny.working_memory = tiny_memory


def test_contexts_of_saes_without_a_folder_are_shown(
    tiny: InstrumentedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    files = stream_store(tiny, whole())
    assert all(tmp_path in file.parents for file in files)
    nodes = effect_graph(tiny, PROMPT).nodes
    assert any(node.contexts for node in nodes)


def test_a_state_is_read_by_its_own_run_alone(
    model: InstrumentedModel, small_batches: None
) -> None:
    files = [store_file(model, layer) for layer in model.stack.layers]
    with pytest.raises(Stopped):
        stream_store(model, until(20), corpus={"name": "mine"})
    facts = {"corpus": {"name": "mine"}, "settings": {"tokens": None, "length": 128}}
    kept, why = ContextsPartial(files, model, facts).read()
    assert kept is not None and why is None
    assert kept.done == kept.place.rows * 32 and kept.counted == kept.place.rows * 31
