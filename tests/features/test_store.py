"""Contexts of a streamed corpus: resumed to the last bit, bounded, refused early."""

from __future__ import annotations

import itertools
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import sae_graphs as sg
from sae_graphs.errors import SaeGraphsError
from sae_graphs.features import batches as row_batches
from sae_graphs.features import partial as context_partial
from sae_graphs.features import store as context_store
from sae_graphs.features.batches import Pace, _rows
from sae_graphs.features.contexts import store_file
from sae_graphs.features.layer_store import LayerStore
from sae_graphs.features.partial import LOCK, RECORD, ContextsPartial
from sae_graphs.features.store import Told, stream_store
from sae_graphs.features.token_rows import Place, TokenRows, passed
from sae_graphs.model.instrument import InstrumentedModel
from tests.support.effect_graphs import effect_graph
from tests.support.models import CORPUS, PROMPT, STACKS, random_stack, save_saes
from tests.support.slow import first, only
from tests.support.stacks import one_line

WORDS = CORPUS.split()
TEXTS = [" ".join(WORDS[n % 7 : n % 7 + 3 + n % 11]) + "\n" for n in range(60)]
TEXTS[5] = "".join(TEXTS[:9])  # longer than several rows
TEXTS[6] = ""


class Stopped(Exception):
    """An interruption."""


@pytest.fixture
def model(
    model_folder: Callable[[str], Path], bridge_of: Callable, tmp_path: Path
) -> InstrumentedModel:
    """Loaded from folders, so that the store lies beside the SAEs' weights."""
    return loaded(model_folder, bridge_of, tmp_path, seed=0)


def loaded(
    model_folder: Callable[[str], Path], bridge_of: Callable, folder: Path, *, seed: int
) -> InstrumentedModel:
    kinds = ["topk", "jumprelu"]
    saes = random_stack(bridge_of("gpt2"), STACKS["mixed"], kinds, dtype="float32", seed=seed)
    found = sg.load(model_folder("gpt2"), saes=save_saes(saes, folder / "saes"))
    assert isinstance(found, InstrumentedModel)
    return found


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows a batch, and what was found is kept after each."""
    monkeypatch.setattr(row_batches, "ROWS_TOGETHER", 2)
    monkeypatch.setattr(row_batches, "MOST_ROWS", 2)
    monkeypatch.setattr(context_store, "SAVED_EVERY", 0.0)


def until(stop: int, texts: list[str] = TEXTS) -> Callable[[], Iterator[str]]:
    """Texts that break off."""

    def read() -> Iterator[str]:
        yield from texts[:stop]
        raise Stopped

    return read


def whole(texts: list[str] = TEXTS) -> Callable[[], Iterator[str]]:
    return lambda: iter(texts)


def contents(model: InstrumentedModel) -> list[bytes]:
    return [store_file(model, layer).read_bytes() for layer in model.stack.layers]


def left_over(model: InstrumentedModel) -> list[Path]:
    folder = store_file(model, model.stack.layers[0]).parent.parent
    return sorted(folder.rglob("*partial*"))


class Heard:
    """What a run told."""

    def __init__(self) -> None:
        self.read: list[int] = []
        self.resumed: list[int] = []
        self.refused: list[str] = []
        self.kept: list[int] = []

    @property
    def told(self) -> Told:
        return Told(self.read.append, self.resumed.append, self.refused.append, self.kept.append)


# -- going on --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stops", first(2, [[6], [20], [59], [6, 7, 30], [60], [*range(8, 60, 9)]]))
@pytest.mark.usefixtures("small_batches")
def test_a_resumed_run_gives_the_same_store_to_the_last_bit(
    model: InstrumentedModel, stops: list[int]
) -> None:
    stream_store(model, whole())
    expected = contents(model)
    for file in (store_file(model, layer) for layer in model.stack.layers):
        file.unlink()
    done = 0
    for stop in stops:
        heard = Heard()
        with pytest.raises(Stopped):
            stream_store(model, until(stop), told=heard.told)
        assert not heard.refused
        assert heard.resumed == ([done] if done else [])
        done = heard.kept[-1] if heard.kept else done
    heard = Heard()
    stream_store(model, whole(), told=heard.told)
    assert heard.resumed == [done] and done > 0
    assert all(read > done for read in heard.read)  # nothing is read twice
    assert contents(model) == expected
    assert left_over(model) == []


def test_how_rows_are_batched_changes_no_bit(
    model: InstrumentedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_batches, "ROWS_TOGETHER", 2)
    stream_store(model, whole())
    expected = contents(model)
    monkeypatch.setattr(context_store, "SAVED_EVERY", 0.0)
    monkeypatch.setattr(row_batches, "MOST_ROWS", 2)
    with pytest.raises(Stopped):
        stream_store(model, until(20))
    monkeypatch.setattr(row_batches, "MOST_ROWS", 8)
    heard = Heard()
    stream_store(model, whole(), told=heard.told)
    assert heard.resumed
    assert contents(model) == expected


@pytest.mark.usefixtures("small_batches")
def test_a_crash_while_keeping_leaves_the_state_before(
    model: InstrumentedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream_store(model, whole())
    expected = contents(model)
    write, calls = context_partial.write_atomically, itertools.count()
    per_state = len(model.stack.layers) + 1

    def crashing(file: Path, data: bytes) -> None:
        if next(calls) == 3 * per_state + 1:  # within the fourth state: one layer is newer
            raise Stopped
        write(file, data)

    monkeypatch.setattr(context_partial, "write_atomically", crashing)
    heard = Heard()
    with pytest.raises(Stopped):
        stream_store(model, whole(), told=heard.told)
    assert len(heard.kept) == 3
    monkeypatch.setattr(context_partial, "write_atomically", write)
    again = Heard()
    stream_store(model, whole(), told=again.told)
    assert again.resumed == [heard.kept[-1]]
    assert contents(model) == expected


@pytest.mark.slow
@pytest.mark.usefixtures("small_batches")
def test_what_another_run_left_is_refused_and_said(
    model: InstrumentedModel,
    model_folder: Callable[[str], Path],
    bridge_of: Callable,
    tmp_path: Path,
) -> None:
    def interrupted() -> None:
        with pytest.raises(Stopped):
            stream_store(model, until(20), corpus={"name": "mine"})

    def refused(other: InstrumentedModel, texts: list[str], **options: object) -> list[str]:
        heard = Heard()
        stream_store(other, whole(texts), told=heard.told, **options)  # type: ignore[arg-type]
        assert not heard.resumed
        return heard.refused

    stream_store(model, whole())
    fresh = contents(model)
    interrupted()
    assert refused(model, TEXTS, corpus={"name": "other"}) == ["the text is another"]
    assert contents(model) == fresh
    assert left_over(model) == []
    interrupted()
    changed = [text.replace("cat", "dog") for text in TEXTS]
    assert refused(model, changed, corpus={"name": "mine"}) == ["the texts are others"]
    assert contents(model) != fresh
    interrupted()
    assert refused(model, TEXTS[:3], corpus={"name": "mine"}) == ["the texts are others"]
    interrupted()
    assert refused(model, TEXTS, corpus={"name": "mine"}, tokens=99) == ["the settings are others"]
    interrupted()
    other = loaded(model_folder, bridge_of, tmp_path, seed=1)  # in the same folder
    assert refused(other, TEXTS, corpus={"name": "mine"}) == ["the model or the SAEs are others"]
    assert refused(other, TEXTS) == []


def record_of(model: InstrumentedModel) -> Path:
    return store_file(model, model.stack.layers[0]).with_name(RECORD)


def spoil_record(data: bytes) -> Callable[[InstrumentedModel], None]:
    def spoil(model: InstrumentedModel) -> None:
        record_of(model).write_bytes(data)

    return spoil


def spoil_tensors(model: InstrumentedModel) -> None:
    for file in left_over(model):
        if file.suffix == ".safetensors":
            file.write_bytes(file.read_bytes()[:-7])


def remove_tensors(model: InstrumentedModel) -> None:
    for file in left_over(model):
        if file.suffix == ".safetensors":
            file.unlink()


def older_step(model: InstrumentedModel) -> None:
    record = json.loads(record_of(model).read_text())
    record["step"] += 2
    record_of(model).write_text(json.dumps(record))


SPOILED = {
    "empty": spoil_record(b""),
    "a list": spoil_record(b"[]"),
    "nothing in it": spoil_record(b'{"schema": "sae_graphs/contexts-partial/3"}'),
    "binary": spoil_record(b"\xff\xfe\x00"),
    "tensors cut": spoil_tensors,
    "tensors gone": remove_tensors,
    "another step's tensors": older_step,
}


@pytest.mark.parametrize(
    "how", only(SPOILED, "empty", "nothing in it", "tensors cut", "another step's tensors")
)
@pytest.mark.usefixtures("small_batches")
def test_a_damaged_state_is_not_used(model: InstrumentedModel, how: str) -> None:
    with pytest.raises(Stopped):
        stream_store(model, until(20))
    SPOILED[how](model)
    heard = Heard()
    stream_store(model, whole(), told=heard.told)
    assert heard.refused == ["it is damaged"] and not heard.resumed
    assert left_over(model) == []


@pytest.mark.usefixtures("small_batches")
def test_another_version_of_the_state_is_said(model: InstrumentedModel) -> None:
    with pytest.raises(Stopped):
        stream_store(model, until(20))
    spoil_record(b'{"schema": "sae_graphs/contexts-partial/2"}')(model)
    heard = Heard()
    stream_store(model, whole(), told=heard.told)
    assert heard.refused == ["it was made by another version"]


@pytest.mark.usefixtures("small_batches")
def test_a_state_that_cannot_be_kept_stops_nothing(
    model: InstrumentedModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(file: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(context_partial, "write_atomically", full)
    heard = Heard()
    stream_store(model, whole(), told=heard.told)
    assert heard.kept == []
    assert len([r for r in caplog.records if "No space left" in r.getMessage()]) == 1


def test_a_short_run_keeps_nothing_on_the_way(model: InstrumentedModel) -> None:
    heard = Heard()
    stream_store(model, whole(), told=heard.told)
    assert heard.kept == [] and heard.read


# -- alone -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("small_batches")
def test_a_second_run_on_the_same_saes_is_refused(model: InstrumentedModel) -> None:
    stream_store(model, whole())
    expected = contents(model)
    refused = []

    def texts() -> Iterator[str]:
        for number, text in enumerate(TEXTS):
            if number in (0, 40):  # another user starts, before and after something is kept
                with pytest.raises(SaeGraphsError, match="another run finds contexts") as caught:
                    stream_store(model, whole(TEXTS[:9]))
                refused.append(one_line(caught))
            yield text

    stream_store(model, texts)
    assert len(refused) == 2 and all(LOCK in line for line in refused)
    assert contents(model) == expected
    with pytest.raises(Stopped):
        stream_store(model, until(20))
    stream_store(model, whole())  # nothing is held any more
    folder = store_file(model, model.stack.layers[0]).parent
    assert not (folder / LOCK).exists()
    (folder / LOCK).write_text("12345")  # of a run that was killed
    stream_store(model, whole())
    assert contents(model) == expected


@pytest.mark.slow
def test_another_process_keeps_a_run_away(model: InstrumentedModel) -> None:
    last = store_file(model, model.stack.layers[-1])  # a stack that shares one SAE
    code = (
        "import sys, time; from pathlib import Path\n"
        "from sae_graphs.features.partial import alone_with\n"
        f"with alone_with([Path({str(last)!r})]): print('held', flush=True); time.sleep(99)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout is not None and other.stdout.readline() == b"held\n"
            with pytest.raises(SaeGraphsError, match="another run"):
                stream_store(model, until(0))
        finally:
            other.kill()
    stream_store(model, whole())


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
def test_hostile_texts(model: InstrumentedModel) -> None:
    with pytest.raises(Stopped):
        stream_store(model, until(20, HOSTILE * 5))
    heard = Heard()
    stream_store(model, whole(HOSTILE * 5), told=heard.told)
    assert heard.resumed
    resumed = contents(model)
    stream_store(model, whole(HOSTILE * 5))
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
