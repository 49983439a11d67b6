"""Writing: a reader, a crash or a second run never meets half a result."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from sae_graphs.errors import SaeGraphsError
from sae_graphs.files import locked, write_atomically
from sae_graphs.runs import RECORD, alone_in, check_writable, recorded_files, replace_folder


def run_files(mark: str, *names: str) -> dict[str, bytes]:
    """A run's files: each holds the run's mark, the record lists them all."""
    files = {name: mark.encode() for name in names}
    files[RECORD] = json.dumps({"mark": mark, "files": [*names, RECORD]}).encode()
    return files


def held(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_write_atomically(tmp_path: Path) -> None:
    file = tmp_path / "new" / "graph.json"
    write_atomically(file, b"one")
    write_atomically(file, b"two")
    assert held(file.parent) == {"graph.json": b"two"}


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "graph.json"
    file.write_bytes(b"old")

    def disk_full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", disk_full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(file, b"new")
    monkeypatch.undo()
    assert held(tmp_path) == {"graph.json": b"old"}


def test_replace_folder_removes_the_earlier_run_and_keeps_the_rest(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    replace_folder(folder, run_files("one", "graph.json", "graph.svg"))
    (folder / "notes.txt").write_text("mine")
    (folder / "plots").mkdir()
    (folder / "plots" / "a.png").write_text("mine too")
    replace_folder(folder, run_files("two", "graph.json", "graph.png"))
    assert {path.name for path in folder.iterdir()} == {
        "graph.json",
        "graph.png",
        RECORD,
        "notes.txt",
        "plots",
    }
    assert (folder / "graph.json").read_text() == "two"
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "plots" / "a.png").read_text() == "mine too"
    assert list(tmp_path.iterdir()) == [folder]


def test_what_a_run_did_not_write_is_kept_in_its_folders_too(tmp_path: Path) -> None:
    """Files of the user's in `RUN/exports` and `RUN/validation`, when the graph is made again."""
    folder = tmp_path / "run"
    replace_folder(folder, run_files("one", "graph.json", "exports", "validation", "bare", "link"))
    for name in ("exports", "validation", "bare", "link"):
        (folder / name).unlink()
    replace_folder(folder / "exports", run_files("one", "graph.csv"))
    replace_folder(folder / "validation", run_files("one", "validation.json"))
    (folder / "exports" / "notes.txt").write_text("mine")
    (folder / "exports" / "plots").mkdir()
    (folder / "exports" / "plots" / "a.png").write_text("mine too")
    (folder / "bare").mkdir()  # nothing says what in it was a run's
    (folder / "bare" / "b.txt").write_text("mine as well")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "c.txt").write_text("not in the run")
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    replace_folder(folder, run_files("two", "graph.json"))
    kept = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    texts = {"exports/notes.txt", "exports/plots/a.png", "bare/b.txt"}
    assert kept == {"graph.json", RECORD, *texts, f"exports/{RECORD}"}
    assert recorded_files(folder / "exports") == {RECORD}  # what comes next may use the folder
    check_writable(folder / "exports")
    assert (folder / "exports" / "notes.txt").read_text() == "mine"
    assert (tmp_path / "elsewhere" / "c.txt").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"run", "elsewhere"}


def test_replace_folder_makes_parents_and_takes_relative_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    replace_folder(Path("a/b/run"), run_files("one", "x"))
    assert held(tmp_path / "a" / "b" / "run") == run_files("one", "x")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    replace_folder(Path(), run_files("two", "x"))
    assert held(tmp_path / "here") == run_files("two", "x")


def test_replace_folder_writes_where_a_link_points(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    replace_folder(tmp_path / "link", run_files("one", "x"))
    replace_folder(tmp_path / "link", run_files("two", "x"))
    assert (tmp_path / "link").is_symlink()
    assert held(tmp_path / "real") == run_files("two", "x")
    assert {path.name for path in tmp_path.iterdir()} == {"real", "link"}


@pytest.mark.parametrize("failing", ["write_bytes", "replace"])
def test_a_failure_in_the_middle_leaves_the_old_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    folder = tmp_path / "run"
    replace_folder(folder, run_files("old", "graph.json"))
    (folder / "notes.txt").write_text("mine")
    before = held(folder)

    def fail(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, failing, fail)
    with pytest.raises(SaeGraphsError, match="No space left"):
        replace_folder(folder, run_files("new", "graph.json"))
    monkeypatch.undo()
    assert held(folder) == before
    assert list(tmp_path.iterdir()) == [folder]


def test_a_file_in_the_way_is_not_lost(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("precious")
    with pytest.raises(SaeGraphsError, match="cannot write"):
        replace_folder(tmp_path / "run", run_files("new", "x"))
    assert (tmp_path / "run").read_text() == "precious"


def test_a_damaged_record_is_no_obstacle(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for damaged in (b"{", b"[]", b'{"files": 5}', b'{"files": [{}]}', b"[" * 99_999):
        folder.mkdir(exist_ok=True)
        (folder / RECORD).write_bytes(damaged)
        replace_folder(folder, run_files("new", "x"))
        assert held(folder) == run_files("new", "x")


def write_often(folder: Path, mark: str, names: tuple[str, ...], times: int) -> None:
    for _ in range(times):
        replace_folder(folder, run_files(mark, *names))


def assert_one_run(folder: Path, notes: bytes) -> None:
    files = held(folder)
    assert files.pop("notes.txt") == notes
    record = json.loads(files[RECORD])
    assert files == run_files(record["mark"], *sorted(set(record["files"]) - {RECORD}))


WRITERS = {"one": ("a", "b"), "two": ("b", "c"), "three": ("c", "d"), "four": ("a", "d")}


def test_threads_writing_at_once_do_not_mix(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    threads = [
        threading.Thread(target=write_often, args=(folder, mark, names, 25))
        for mark, names in WRITERS.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_one_run(folder, b"mine")
    assert list(tmp_path.iterdir()) == [folder]


def test_processes_writing_at_once_do_not_mix(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    spawn = multiprocessing.get_context("fork")
    workers = [
        spawn.Process(target=write_often, args=(folder, mark, names, 25))
        for mark, names in WRITERS.items()
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert_one_run(folder, b"mine")
    assert list(tmp_path.iterdir()) == [folder]


# -- before the work -------------------------------------------------------------------------------


def test_check_writable_accepts_new_empty_and_earlier(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b")
    check_writable(tmp_path)
    replace_folder(tmp_path / "run", run_files("one", "x"))
    check_writable(tmp_path / "run")
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


def test_check_writable_refuses_foreign_files(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(SaeGraphsError, match="no run wrote"):
        check_writable(tmp_path)


def test_check_writable_refuses_a_file_and_what_lies_below_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SaeGraphsError):
            check_writable(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_check_writable_refuses_a_locked_parent(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    with pytest.raises(SaeGraphsError, match="cannot write into"):
        check_writable(locked / "run")


def test_notes_survive_a_failure_in_the_middle_of_moving_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    replace_folder(folder, {"run.json": b'{"files": ["run.json"]}'})
    for name in ("one.txt", "two.txt"):
        (folder / name).write_text("mine")
    rename, moved = Path.rename, []

    def failing(self: Path, target: Path) -> Path:
        if self.suffix == ".txt":
            moved.append(self.name)
            if len(moved) == 2:
                raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(KeyboardInterrupt):
        replace_folder(folder, {"run.json": b'{"files": ["run.json"]}'})
    assert {path.name for path in tmp_path.rglob("*.txt")} == {"one.txt", "two.txt"}


# -- one at a time ---------------------------------------------------------------------------------


def test_runs_that_write_into_one_folder_wait_and_leave_no_lock(tmp_path: Path) -> None:
    inside, most = [], []

    def work() -> None:
        for _ in range(5):
            with alone_in(tmp_path):
                inside.append(1)
                most.append(len(inside))
                (tmp_path / "file").write_text("mine")
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 20 and set(most) == {1}
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_lock_that_need_not_be_waited_for(tmp_path: Path) -> None:
    with locked(tmp_path / "lock", wait=False):
        with pytest.raises(Timeout), locked(tmp_path / "lock", wait=False):
            pass
        assert (tmp_path / "lock").exists()  # it is still the first one's
    with locked(tmp_path / "lock", wait=False):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("problem", [PermissionError(13, "no"), OSError(38, "no locks here")])
def test_where_nothing_can_be_locked_a_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: OSError
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise problem

    monkeypatch.setattr(FileLock, "acquire", failing)
    with alone_in(tmp_path):
        (tmp_path / "file").write_text("mine")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), alone_in(tmp_path / "gone"):
        pass
    assert list(tmp_path.iterdir()) == []
