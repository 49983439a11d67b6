"""Contexts of a streamed corpus: resumed to the last bit, bounded, refused early."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path

import pytest

from sae_graphs.errors import SaeGraphsError
from sae_graphs.features import batches as row_batches
from sae_graphs.features import partial as context_partial
from sae_graphs.features import store as context_store
from sae_graphs.features.contexts import store_file
from sae_graphs.features.partial import LOCK, RECORD
from sae_graphs.features.store import stream_store
from sae_graphs.model.instrument import InstrumentedModel
from tests.support.loaded import loaded
from tests.support.slow import first, only
from tests.support.stacks import one_line
from tests.support.streamed import TEXTS, Heard, Stopped, contents, left_over, until, whole

# -- going on --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stops", first(1, [[20], [6], [59], [6, 7, 30], [60], [*range(8, 60, 9)]]))
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


@pytest.mark.parametrize("how", only(SPOILED, "empty", "tensors cut"))
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
    model: InstrumentedModel, monkeypatch: pytest.MonkeyPatch, logged: StringIO
) -> None:
    def full(file: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(context_partial, "write_atomically", full)
    heard = Heard()
    stream_store(model, whole(), told=heard.told)
    assert heard.kept == []
    assert logged.getvalue().count("No space left") == 1


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
