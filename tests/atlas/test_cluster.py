"""Builds that are killed, and builds by workers, some of which are lost: the rows are the same."""

from __future__ import annotations

import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import sae_graphs as sg
from sae_graphs.atlas import cluster
from sae_graphs.atlas.plan import Plan
from sae_graphs.atlas.prompts import Asked
from sae_graphs.atlas.rows import TABLES, failure_of
from sae_graphs.errors import SaeGraphsError
from sae_graphs.tracing.settings import TraceSettings
from sae_graphs.validation.settings import ValidationSettings
from tests.support.atlases import EFFECT, everything
from tests.support.models import CORPUS, save_model_folder, save_sae_folder

COUNT = 60
SECONDS = 120  # in which a cluster has started
STOPS = 11  # prompts after which a build waits to be killed
BUILD = """
import sys, time
import sae_graphs as sg
from sae_graphs.atlas import cluster, measure
from tests.support.atlases import EFFECT
from tests.atlas.test_cluster import STOPS, prompts

kind = cluster.Cluster if len(sys.argv) > 4 else measure.Here
own = kind.rows

def rows(self, asked):
    for number, found in enumerate(own(self, asked)):
        if number == STOPS:
            print("now", flush=True)
            time.sleep(600)
        yield found

kind.rows = rows
options = dict(loading={"saes": sys.argv[2]}, settings=EFFECT)
if len(sys.argv) > 4:
    options |= dict(ray="local", workers=2)
sg.build_atlas(sys.argv[1], prompts(), sys.argv[3], **options)
"""

ASK = """
import sys
import sae_graphs as sg
from tests.atlas.test_cluster import prompts
from tests.support.atlases import EFFECT

model, saes, out, address = sys.argv[1:]
sg.build_atlas(model, prompts(), out, loading={"saes": saes}, settings=EFFECT, ray=address)
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


def killed(folders: tuple[str, str], out: Path, *more: str) -> None:
    """Start a build, and kill it when so many prompts are measured, and another is in flight."""
    command = [sys.executable, "-c", BUILD, *folders, str(out), *more]
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE) as build:
        assert build.stdout is not None
        assert b"now" in build.stdout.readline(), "it ended before it could be killed"
        os.kill(build.pid, signal.SIGKILL)
        build.wait()
        if more:  # the workers of a driver that is gone end by themselves; not so in a hurry
            os.killpg(build.pid, signal.SIGKILL)
    for part in out.glob("parts/*"):
        assert {file.name for file in part.iterdir()} >= {f"{table}.parquet" for table in TABLES}


@contextmanager
def head(environment: Mapping[str, str]) -> Iterator[str]:
    """A cluster of two cores, started as on a machine of its own, and its address for drivers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = "from ray.scripts.scripts import main; main()"
    command = [sys.executable, "-c", start, "start", "--head", "--block", "--port=0"]
    command += ["--num-cpus=2", "--node-ip-address=127.0.0.1", "--include-dashboard=false"]
    command += [f"--ray-client-server-port={port}", "--disable-usage-stats"]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=quiet, stderr=quiet
    ) as started:
        try:
            for _ in range(SECONDS * 10):
                if started.poll() is None and listens(port):
                    break
                time.sleep(0.1)
            yield f"ray://127.0.0.1:{port}"
        finally:
            started.terminate()  # and with it all that it started
            started.wait()


def listens(port: int) -> bool:
    with socket.socket() as asked:
        return asked.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.slow
def test_a_killed_build_loses_the_prompt_in_flight_and_no_other(
    folders: tuple[str, str], whole: Any, tmp_path: Path
) -> None:
    out = tmp_path / "atlas"
    killed(folders, out)
    model, saes = folders
    again = sg.build_atlas(model, prompts(), out, loading={"saes": saes}, settings=EFFECT)
    assert (again.known, again.measured) == (STOPS, COUNT - STOPS)
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
        assert (again.known, again.measured) == (STOPS, COUNT - STOPS)
        assert everything(out) == whole

    def test_traces_and_verdicts(self, folders: tuple[str, str], tmp_path: Path) -> None:
        model, saes = folders
        rows = [{"prompt": text, "subject": text.split()[0]} for text in prompts()[:9]]
        options: dict[str, Any] = {
            "loading": {"saes": saes},
            "settings": EFFECT,
            "trace": TraceSettings(noise_runs=6, strength="3s"),
            "validate": ValidationSettings(quick=True, controls=9, paths=1),
        }
        sg.build_atlas(model, rows, tmp_path / "a", **options)
        sg.build_atlas(model, rows, tmp_path / "b", **options, ray="local", workers=2)
        found = everything(tmp_path / "a")
        assert all(found[table] for table in ("traces", "sites", "verdicts"))
        assert found == everything(tmp_path / "b")

    def test_a_cluster_at_an_address(
        self, folders: tuple[str, str], whole: Any, tmp_path: Path
    ) -> None:
        pytest.importorskip("grpc", reason="the extra `ray` is not installed whole")
        # Else anybody could run code there. Ray reads it when it is imported.
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        with head(os.environ | token) as address:
            command = [sys.executable, "-c", ASK, *folders, str(tmp_path / "atlas"), address]
            ended = subprocess.run(command, env=os.environ | token, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        assert everything(tmp_path / "atlas") == whole

    def test_more_workers_than_cores(
        self, folders: tuple[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Those without a core never load the model, and nobody waits for them."""
        import ray

        own = ray.init
        monkeypatch.setattr(ray, "init", lambda *at, **given: own(*at, **{**given, "num_cpus": 1}))
        model, saes = folders
        given = {"model": model, "saes": saes}
        with cluster.Cluster("local", given, Plan(EFFECT), 3) as made:
            found = list(made.rows([Asked(text) for text in prompts()[:17]]))
        assert len(found) == 17 and not any(each.failed for each in found)

    def test_a_model_that_no_worker_can_load(self, tmp_path: Path) -> None:
        with pytest.raises(
            SaeGraphsError, match=r"no worker could load the model: .*nowhere"
        ) as told:
            sg.build_atlas(str(tmp_path / "nowhere"), ["a"], tmp_path / "a", ray="local", workers=2)
        assert "\n" not in str(told.value)

    def test_nobody_is_there(self, folders: tuple[str, str], tmp_path: Path) -> None:
        with pytest.raises(SaeGraphsError, match=r"no Ray cluster at '127\.0\.0\.1:1'") as told:
            sg.build_atlas(folders[0], ["a"], tmp_path / "a", ray="127.0.0.1:1")
        assert "\n" not in str(told.value)


def test_a_prompt_that_takes_its_workers_along_is_the_one_that_fails() -> None:
    good, bad = Asked("good"), Asked("bad")
    losses: dict[str, int] = {}
    batches: deque[Any] = deque()
    problem = RuntimeError("ray::Worker.rows()\nThe actor died.")
    assert not list(cluster.lost([good, bad], losses, batches, problem))
    assert [list(batch) for batch in batches] == [[good], [bad]]
    assert not list(cluster.lost([bad], losses, batches, problem))
    (failed,) = cluster.lost([bad], losses, batches, problem)
    (row,) = failed.tables["failures"]
    assert row["prompt"] == "bad"
    assert row["reason"] == "lost with 3 workers: The actor died."
    assert [batch[0] for batch in batches] == [good, bad, bad]


def test_workers_of_another_model_are_refused() -> None:
    facts = {"model": "one", "digest": "a"}
    cluster.check_same(facts, dict(facts))
    with pytest.raises(SaeGraphsError, match="a worker has digest 'b', and the first one 'a'"):
        cluster.check_same(facts, {**facts, "digest": "b"})


def test_what_a_worker_died_of() -> None:
    class Told(Exception):
        cause = ValueError("too\nlong")

    assert cluster.reason_of(Told("ray::Worker.rows() (pid=1)\n  trace")) == "ValueError: too long"
    assert cluster.reason_of(RuntimeError("")) == "RuntimeError"
    grpc = "Failed: <_Rendezvous that ended with:\n\tdetails = \"No module named 'x'\"\n>"
    assert cluster.reason_of(ConnectionError(grpc)) == "No module named 'x'"


class Pretended:
    """Ray, as far as `Cluster` uses it: what each worker answers is said beforehand."""

    class exceptions:  # as Ray has it
        class RayError(Exception):
            pass

        class RaySystemError(RayError):
            pass

    def __init__(self, facts: list[Any], wait: Exception | None = None) -> None:
        self._facts, self._wait = iter(facts), wait
        self.resources: list[dict[str, Any]] = []

    def init(self, address: str | None = None, **_: Any) -> None:
        self.address = address

    def shutdown(self) -> None: ...

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0, "GPU": 3.0}

    def remote(self, **resources: Any) -> Any:
        self.resources.append(resources)
        return lambda _: SimpleNamespace(remote=lambda *_: self._worker())

    def _worker(self) -> Any:
        facts = next(self._facts)
        return SimpleNamespace(
            facts=SimpleNamespace(remote=lambda: Answer(facts)),
            rows=SimpleNamespace(remote=lambda batch: Answer([failure_of(batch[0], "x")])),
        )

    def wait(self, held: list[Any], **_: Any) -> Any:
        if self._wait is not None:
            raise self._wait
        there = [each for each in held if each.value is not None]
        assert there, "this would wait for ever"
        return there[:1], []

    def get(self, ready: Any) -> Any:
        if isinstance(ready.value, Exception):
            raise ready.value
        return ready.value


class Answer:
    """What a worker will say; None: never."""

    def __init__(self, value: Any) -> None:
        self.value = value


def pretended(monkeypatch: pytest.MonkeyPatch, ray: Pretended, **loading: Any) -> cluster.Cluster:
    monkeypatch.setitem(sys.modules, "ray", ray)
    return cluster.Cluster("local", loading, Plan(EFFECT), None)


def test_workers_that_never_load_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with pretended(monkeypatch, Pretended([None, {"model": "m"}])) as made:
        assert made.facts() == {"model": "m"}
        assert len(list(made.rows([Asked(f"{n}") for n in range(3 * cluster.BATCH)]))) == 3


def test_workers_that_cannot_load_are_left_out(
    monkeypatch: pytest.MonkeyPatch, logged: StringIO
) -> None:
    fault = Pretended.exceptions.RayError("no such model")
    with pretended(monkeypatch, Pretended([fault, {"model": "m"}])) as made:
        assert len(list(made.rows([Asked(f"{n}") for n in range(3 * cluster.BATCH)]))) == 3
    assert "could not load the model, and is left out: no such model" in logged.getvalue()
    with (
        pretended(monkeypatch, Pretended([fault, fault])) as made,
        pytest.raises(SaeGraphsError, match="no worker could load the model: no such model"),
    ):
        made.facts()


def test_a_second_worker_of_another_model_ends_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    with pretended(monkeypatch, Pretended([{"model": "m"}, {"model": "n"}])) as made:
        made.facts()
        with pytest.raises(SaeGraphsError, match="a worker has model 'n', and the first one 'm'"):
            list(made.rows([Asked(f"{n}") for n in range(9 * cluster.BATCH)]))


def test_a_cluster_that_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = Pretended([{}, {}], ConnectionError("channel closed"))
    with (
        pretended(monkeypatch, ray) as made,
        pytest.raises(SaeGraphsError, match=r"the Ray cluster is lost \(channel closed\); what is"),
    ):
        made.facts()


def test_a_worker_has_a_gpu_where_one_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for device, expected in {"cpu": (2, 0), "cuda": (3, 1), "cuda:1": (3, 1)}.items():
        ray = Pretended([{}, {}, {}])
        with pretended(monkeypatch, ray, device=device):
            assert ray.address == "local", "one that runs here already is not taken"
            assert ray.resources == [{"num_cpus": 1, "num_gpus": expected[1]}] * expected[0]


def test_without_ray_it_says_how_to_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SaeGraphsError, match=r"pip install 'sae-graphs\[ray\]'"):
        sg.build_atlas("demo", ["a"], "outputs/never", ray="local")
    assert not Path("outputs/never").exists()
