"""Builds that are killed, and builds by workers, some of which are lost: the rows are the same."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import sae_graphs as sg
from sae_graphs.atlas import cluster
from sae_graphs.atlas.prompts import Asked
from sae_graphs.atlas.rows import TABLES
from sae_graphs.errors import SaeGraphsError
from tests.atlas.test_build import EFFECT, everything
from tests.support.models import CORPUS, save_model_folder, save_sae_folder

COUNT = 60
BUILD = """
import sys
import sae_graphs as sg
from sae_graphs.atlas import build
from tests.atlas.test_build import EFFECT
from tests.atlas.test_cluster import prompts
build.SECONDS = 0.3
options = dict(loading={"saes": sys.argv[2]}, settings=EFFECT)
if len(sys.argv) > 4:
    options |= dict(ray="local", workers=2)
sg.build_atlas(sys.argv[1], prompts(), sys.argv[3], **options)
"""


def prompts() -> list[str]:
    words = CORPUS.replace("(", "").replace(")", "").split()
    return [" ".join(random.Random(n).choices(words, k=9)) for n in range(COUNT)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("workers")
    save_model_folder(folder / "model")
    save_sae_folder(folder / "saes")
    return str(folder / "model"), str(folder / "saes")


@pytest.fixture(scope="module")
def whole(folders: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The rows of a build by one process that nothing stopped."""
    model, saes = folders
    out = tmp_path_factory.mktemp("whole") / "atlas"
    sg.build_atlas(model, prompts(), out, loading={"saes": saes}, settings=EFFECT)
    return everything(out)


def killed(folders: tuple[str, str], out: Path, *more: str) -> int:
    """Start a build, kill it when it has written three parts; how many it has written then."""
    command = [sys.executable, "-c", BUILD, *folders, str(out), *more]
    with subprocess.Popen(command, start_new_session=True) as build:
        started = time.monotonic()
        while len(list(out.glob("parts/*"))) < 3:
            assert build.poll() is None, "it ended before it could be killed"
            assert time.monotonic() - started < 500
            time.sleep(0.02)
        os.kill(build.pid, signal.SIGKILL)
        build.wait()
        if more:  # the workers of a driver that is gone end by themselves; not so in a hurry
            os.killpg(build.pid, signal.SIGKILL)
    parts = list(out.glob("parts/*"))
    for part in parts:
        assert {file.name for file in part.iterdir()} == {f"{table}.parquet" for table in TABLES}
        assert len({pq.read_table(part / "prompts.parquet").num_rows} - {0}) == 1
    return len(parts)


@pytest.mark.slow
def test_a_killed_build_leaves_no_half_part_and_goes_on(
    folders: tuple[str, str], whole: Any, tmp_path: Path
) -> None:
    out = tmp_path / "atlas"
    assert killed(folders, out) >= 3
    known = len(sg.Atlas(out).prompts())
    assert 0 < known < COUNT
    model, saes = folders
    again = sg.build_atlas(model, prompts(), out, loading={"saes": saes}, settings=EFFECT)
    assert (again.known, again.measured) == (known, COUNT - known)
    assert everything(out) == whole


@pytest.mark.slow
class TestWorkers:
    @pytest.fixture(autouse=True)
    def _ray(self) -> Iterator[None]:
        ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
        yield
        ray.shutdown()

    def test_one_is_lost(
        self,
        folders: tuple[str, str],
        whole: Any,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Killed when the first rows have come; what it was measuring is measured again."""
        own, lost = cluster.Cluster.rows, []

        def rows(self: cluster.Cluster, asked: Any) -> Iterator[Any]:
            for number, found in enumerate(own(self, asked)):
                if number == 5:
                    lost.append(self.processes()[0])
                    os.kill(lost[0], signal.SIGKILL)
                yield found

        monkeypatch.setattr(cluster.Cluster, "rows", rows)
        model, saes = folders
        built = sg.build_atlas(
            *(model, prompts(), tmp_path / "atlas"),
            loading={"saes": saes},
            settings=EFFECT,
            ray="local",
            workers=2,
        )
        assert lost and (built.measured, built.failed) == (COUNT, ())
        assert everything(tmp_path / "atlas") == whole

    def test_the_driver_is_killed_and_started_again(
        self, folders: tuple[str, str], whole: Any, tmp_path: Path
    ) -> None:
        out = tmp_path / "atlas"
        killed(folders, out, "ray")
        model, saes = folders
        again = sg.build_atlas(
            *(model, prompts(), out),
            loading={"saes": saes},
            settings=EFFECT,
            ray="local",
            workers=2,
        )
        assert 0 < again.known < COUNT and again.known + again.measured == COUNT
        assert everything(out) == whole

    def test_nobody_is_there(self, folders: tuple[str, str], tmp_path: Path) -> None:
        with pytest.raises(SaeGraphsError, match=r"no Ray cluster at '127\.0\.0\.1:1'") as told:
            sg.build_atlas(folders[0], ["a"], tmp_path / "a", ray="127.0.0.1:1")
        assert "\n" not in str(told.value)


def test_a_prompt_that_takes_its_workers_along_is_the_one_that_fails() -> None:
    good, bad = Asked("good"), Asked("bad")
    losses: dict[str, int] = {}
    batches: deque[Any] = deque()
    problem = RuntimeError("The actor died.\nmore")
    assert not list(cluster.lost([good, bad], losses, batches, problem))
    assert [list(batch) for batch in batches] == [[good], [bad]]
    assert not list(cluster.lost([bad], losses, batches, problem))
    (failed,) = cluster.lost([bad], losses, batches, problem)
    (row,) = failed.tables["failures"]
    assert row["prompt"] == "bad"
    assert row["reason"] == "lost with 3 workers: The actor died."
    assert [batch[0] for batch in batches] == [good, bad, bad]


def test_without_ray_it_says_how_to_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SaeGraphsError, match=r"pip install 'sae-graphs\[ray\]'"):
        sg.build_atlas("demo", ["a"], "outputs/never", ray="local")
    assert not Path("outputs/never").exists()
