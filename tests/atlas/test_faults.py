"""Builds that are stopped, fail or run beside another: what is measured is there once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import sae_graphs as sg
from sae_graphs.atlas import build, measure, store
from sae_graphs.atlas.prompts import Asked, digest
from sae_graphs.atlas.rows import Rows
from sae_graphs.errors import SaeGraphsError
from tests.atlas.conftest import TEXTS
from tests.support.atlases import EFFECT, everything, rows_by_hand
from tests.support.slow import only


@pytest.fixture
def model(model: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Its graphs are written by hand, not measured: what is asked is what becomes of rows."""

    def measured(self: Any, asked: Asked) -> Rows:
        flow = -len(asked.prompt) / 10
        return rows_by_hand(asked, [("0.1@1", "1.2@2", flow), ("1.2@2", "2.3@3", flow / 3)])

    monkeypatch.setattr(measure.Here, "measured", measured)
    return model


def stopping(after: int) -> Callable[..., Iterator[Rows]]:
    """Measuring that is stopped by Ctrl-C after so many prompts."""

    def rows(self: Any, asked: Sequence[Asked]) -> Iterator[Rows]:
        for number, each in enumerate(asked):
            if number == after:
                raise KeyboardInterrupt
            yield self.measured(each)

    return rows


def test_an_interrupted_build_goes_on(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(measure.Here, "rows", stopping(2))
        with pytest.raises(KeyboardInterrupt):
            sg.build_atlas(model, TEXTS, tmp_path / "a", settings=EFFECT)
    assert len(sg.Atlas(tmp_path / "a").prompts()) == 2, "what is measured can be asked"
    found = sg.build_atlas(model, TEXTS, tmp_path / "a", settings=EFFECT)
    assert (found.known, found.measured) == (2, 2)
    sg.build_atlas(model, TEXTS, tmp_path / "b", settings=EFFECT)
    assert everything(tmp_path / "a") == everything(tmp_path / "b")


def test_what_a_killed_build_noted_is_there(model: Any, tmp_path: Path) -> None:
    """Two prompts are noted, one of them is in a part as well, and of a third a piece of a line."""
    folder, here = tmp_path / "a", measure.Here(model, build.plan_of(EFFECT))
    manifest = store.Manifest(here.facts(), ("kind",))
    asked = [Asked(text, None, {"kind": text[4:7]}) for text in TEXTS]
    rows = list(here.rows(asked[:2]))
    with store.writing(folder, manifest) as held:
        held.add(rows[:1])
        for each in rows:
            held.note(each)
        journal = folder / store.JOURNAL
        journal.write_text(journal.read_text() + '["half a li')
    found = sg.build_atlas(
        model, [{"prompt": text, "kind": text[4:7]} for text in TEXTS], folder, settings=EFFECT
    )
    assert (found.known, found.measured) == (2, 2)
    assert not journal.exists()
    sg.build_atlas(
        model,
        [{"prompt": text, "kind": text[4:7]} for text in TEXTS],
        tmp_path / "b",
        settings=EFFECT,
    )
    assert everything(folder) == everything(tmp_path / "b")


def test_a_large_part_is_not_written_again(model: Any, tmp_path: Path) -> None:
    """Parts become one with those of their size: few of them, whatever is added."""
    folder = tmp_path / "a"
    here = measure.Here(model, build.plan_of(EFFECT))
    manifest = store.Manifest(here.facts())
    (rows,) = here.rows([Asked(TEXTS[0])])
    with store.writing(folder, manifest) as held:
        held.add([rows._replace(tables=_often(rows.tables, 400))])
        held.compact()
        (large,) = held.parts()
        for number in range(1, 4):
            held.add([_called(rows, f"{number}")])
            held.compact()
            assert large in held.parts() and len(held.parts()) == 2
        held.compact()
        assert len(held.parts()) == 2
        held.add([rows._replace(tables=_often(rows.tables, 200))])
        held.compact()
        assert len(held.parts()) == 1


def _called(rows: Rows, name: str) -> Rows:
    """The rows as those of another prompt."""
    tables = {
        table: [{**row, "prompt_id": name} for row in held] for table, held in rows.tables.items()
    }
    return Rows(name, tables)


def _often(tables: Any, times: int) -> Any:
    """The rows of so many prompts."""
    return {
        table: [{**row, "prompt_id": digest([number])} for number in range(times) for row in held]
        for table, held in tables.items()
    }


def test_a_full_disk_leaves_no_half_part(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, written = pq.write_table, []

    def full(table: Any, place: Path, **options: Any) -> None:
        written.append(place)
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        own(table, place, **options)

    with monkeypatch.context() as patch:
        patch.setattr(pq, "write_table", full)
        with pytest.raises(SaeGraphsError, match="No space left on device; what is measured is"):
            sg.build_atlas(model, TEXTS[:2], tmp_path / "a", settings=EFFECT)
    assert not list((tmp_path / "a" / "parts").iterdir())
    again = sg.build_atlas(model, TEXTS[:2], tmp_path / "a", settings=EFFECT)
    assert (again.known, again.measured) == (2, 0), "what was noted before the disk was full"


def test_a_build_killed_while_tidying_doubles_nothing(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The part of all is in place, and those that it stands for are not gone yet."""
    folder = tmp_path / "a"
    sg.build_atlas(model, TEXTS[:2], folder, settings=EFFECT)
    kept = tmp_path / "kept"
    shutil.copytree(folder / "parts", kept)
    sg.build_atlas(model, TEXTS, folder, settings=EFFECT)
    before = everything(folder)
    for part in kept.iterdir():
        shutil.copytree(part, folder / "parts" / part.name)
    assert len(list((folder / "parts").iterdir())) == 2
    assert everything(folder) == before
    (folder / ".drafts" / "half").mkdir(parents=True)
    sg.build_atlas(model, TEXTS, folder, settings=EFFECT)
    assert everything(folder) == before
    assert len(list((folder / "parts").iterdir())) == 1 and not (folder / ".drafts").exists()


@pytest.mark.parametrize("at", only([1, 2, 3], 2))
def test_what_could_not_be_taken_away_stays_gone(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """A build is killed when it has taken away so many parts; others go on from there."""
    folder = tmp_path / "a"
    own, moved = Path.rename, []

    def rename(self: Path, target: Path) -> Any:
        if self.parent.name == store.PARTS:
            moved.append(self)
            if len(moved) >= at:
                raise OSError(13, "Permission denied")
        return own(self, target)

    monkeypatch.setattr(build, "MOST", 1)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        sg.build_atlas(model, TEXTS[:3], folder, settings=EFFECT)
    assert len(list((folder / "parts").iterdir())) > 1
    before = everything(folder)
    # The part of all is made part of another; what it stood for must not come back.
    kept = [path for path in (folder / "parts").iterdir() if not path.name.startswith("all-")]
    with monkeypatch.context() as patch:
        patch.setattr(
            Path,
            "rename",
            lambda self, target: own(self, target) if self not in kept else _refused(),
        )
        sg.build_atlas(model, TEXTS, folder, settings=EFFECT)
    assert {path.name for path in kept} < {path.name for path in (folder / "parts").iterdir()}
    assert len(everything(folder)["prompts"]) == len(TEXTS) == len(before["prompts"]) + 1
    sg.build_atlas(model, TEXTS, folder, settings=EFFECT)
    assert len(list((folder / "parts").iterdir())) == 1
    sg.build_atlas(model, TEXTS, tmp_path / "b", settings=EFFECT)
    assert everything(folder) == everything(tmp_path / "b")


def _refused() -> None:
    raise OSError(13, "Permission denied")


def test_a_second_build_beside_the_first_is_refused(model: Any, tmp_path: Path) -> None:
    folder = tmp_path / "a"
    sg.build_atlas(model, TEXTS[:1], folder, settings=EFFECT)
    with (
        store.writing(folder, store.Manifest.read(folder)),
        pytest.raises(SaeGraphsError, match="another build is writing into"),
    ):
        sg.build_atlas(model, TEXTS, folder, settings=EFFECT)
    assert sg.build_atlas(model, TEXTS, folder, settings=EFFECT).known == 1


def test_many_small_parts_become_one_on_the_way(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    own = store.Store.compact

    def compact(self: Any) -> None:
        made.append(len(self.parts()))
        own(self)

    with monkeypatch.context() as patch:
        patch.setattr(build, "MOST", 1)
        patch.setattr(build, "SMALL", 2)
        patch.setattr(store.Store, "compact", compact)
        sg.build_atlas(model, TEXTS, tmp_path / "a", settings=EFFECT)
    assert made == [2, 3, 1]
    sg.build_atlas(model, TEXTS, tmp_path / "b", settings=EFFECT)
    assert everything(tmp_path / "a") == everything(tmp_path / "b")
