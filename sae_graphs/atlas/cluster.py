"""Workers of a Ray cluster that measure prompts: each loads the model once and takes batches.

A batch whose worker is lost is given to another; where one prompt is lost with three workers, it is
that prompt that fails. The driver writes; nothing is read from the workers' disks.
"""

from __future__ import annotations

import logging
import os
import re
import socket
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sae_graphs.atlas.plan import Plan
from sae_graphs.atlas.prompts import Asked
from sae_graphs.atlas.rows import Rows, failure_of
from sae_graphs.errors import SaeGraphsError
from sae_graphs.text import shortened, visible

log = logging.getLogger(__name__)

LOCAL = "local"
BATCH = 8  # prompts that a worker takes at once
REACHED_SECONDS = 10  # in which a cluster answers
TRIES = 3  # workers that may be lost with a prompt


class Worker:
    """What an actor runs: the model, loaded once."""

    def __init__(self, loading: Mapping[str, Any], plan: Plan) -> None:
        import torch

        from sae_graphs.atlas.measure import Here
        from sae_graphs.late import named

        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        given = dict(loading)
        if str(given.get("device", "cpu")).startswith("cuda"):
            given["device"] = "cuda"  # Ray shows a worker its own alone
        self._here = Here(named("load")(given.pop("model"), **given), plan)

    def facts(self) -> Mapping[str, Any]:
        """What all rows have in common."""
        return self._here.facts()

    def process(self) -> int:
        """The number of its process."""
        return os.getpid()

    def rows(self, batch: Sequence[Asked]) -> list[Rows]:
        """The rows of some prompts."""
        return list(self._here.rows(batch))


class Cluster:
    """Workers on this machine (`local`) or of the cluster at an address, as a context."""

    def __init__(
        self, address: str, loading: Mapping[str, Any], plan: Plan, workers: int | None
    ) -> None:
        try:
            import ray
        except ImportError as problem:
            raise SaeGraphsError(
                "Ray is not installed, which --ray needs; pip install 'sae-graphs[ray]', or leave "
                "--ray out"
            ) from problem
        self._ray = ray
        self._address = address
        self._arguments = (dict(loading), plan)
        self._wanted = workers
        self._loading: dict[Any, Any] = {}  # by what they will say of the model
        self._workers: list[Any] = []
        self._facts: Mapping[str, Any] | None = None

    def __enter__(self) -> Cluster:
        ray = self._ray
        options = {"log_to_driver": False, "logging_level": "warning"}
        try:
            if self._address == LOCAL:
                os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told
                ray.init(
                    "local",  # its own, whatever cluster runs here
                    num_cpus=self._wanted,
                    include_dashboard=False,
                    _node_ip_address="127.0.0.1",  # for this machine alone
                    **options,
                )
            else:
                _check_reached(self._address)
                ray.init(self._address, **options)
        except (OSError, ValueError, RuntimeError) as problem:
            reason = reason_of(problem)
            raise SaeGraphsError(
                f"no Ray cluster at {self._address!r} ({reason}); give local, or an address such "
                "as ray://host:10001, and where it asks for a token RAY_AUTH_MODE=token"
            ) from problem
        self._gpus = 1 if str(self._arguments[0].get("device", "cpu")).startswith("cuda") else 0
        try:
            with self._reached():
                held = ray.cluster_resources().get("GPU" if self._gpus else "CPU", 0)
            for _ in range(self._wanted or max(int(held), 1)):
                self._start()
        except BaseException:
            ray.shutdown()
            raise
        return self

    def _start(self) -> None:
        """A worker, which loads the model now, and is given nothing before it has said so."""
        kind = self._ray.remote(num_cpus=1, num_gpus=self._gpus)(Worker)
        with self._reached():
            worker = kind.remote(*self._arguments)
            self._loading[worker.facts.remote()] = worker

    def __exit__(self, *problem: object) -> None:
        self._ray.shutdown()

    def processes(self) -> list[int]:
        """The numbers of the processes of the workers that are there."""
        return list(self._ray.get([worker.process.remote() for worker in self._workers]))

    def facts(self) -> Mapping[str, Any]:
        """See `Measuring`: as the worker has them that is the first to have loaded the model."""
        while self._facts is None:
            with self._reached():
                (ready,), _ = self._ray.wait(list(self._loading), num_returns=1)
            self._join(ready)
        return self._facts

    def _join(self, ready: Any) -> Any:
        """A worker that has loaded the model, or None where it could not.

        Raises `SaeGraphsError` where it is of another model, SAEs or version than the others, and
        where none could load it.
        """
        worker = self._loading.pop(ready)
        try:
            found: Mapping[str, Any] = self._ray.get(ready)
        except self._ray.exceptions.RayError as problem:
            reason = reason_of(problem)
            if not self._workers and not self._loading:
                raise SaeGraphsError(f"no worker could load the model: {reason}") from problem
            log.warning("a worker could not load the model, and is left out: %s", reason)
            return None
        if self._facts is None:
            self._facts = found
        check_same(self._facts, found)
        self._workers.append(worker)
        return worker

    def rows(self, asked: Sequence[Asked]) -> Iterator[Rows]:
        """See `Measuring`: as the workers have them done."""
        ray = self._ray
        batches = deque(asked[at : at + BATCH] for at in range(0, len(asked), BATCH))
        losses: dict[str, int] = {}
        running: dict[Any, tuple[Any, Sequence[Asked]]] = {}
        idle = deque(self._workers)
        while batches or running:
            while batches and idle:
                worker, batch = idle.popleft(), batches.popleft()
                running[worker.rows.remote(list(batch))] = worker, batch
            with self._reached():
                (ready,), _ = ray.wait([*self._loading, *running], num_returns=1)
            if ready in self._loading:
                joined = self._join(ready)
                idle += [] if joined is None else [joined]
                continue
            worker, batch = running.pop(ready)
            try:
                with self._reached():
                    found = ray.get(ready)
                idle.append(worker)
            except ray.exceptions.RayError as problem:  # another takes its place
                self._workers.remove(worker)
                self._start()
                found = lost(batch, losses, batches, problem)
            yield from found

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Where the cluster itself is gone, a `SaeGraphsError`."""
        try:
            yield
        except (ConnectionError, self._ray.exceptions.RaySystemError) as problem:
            raise SaeGraphsError(
                f"the Ray cluster is lost ({reason_of(problem)}); what is measured is kept; start "
                "it again, and build again"
            ) from problem


def check_same(held: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raise where a worker has loaded something else than the first: the rows would be mixed."""
    for name, value in held.items():
        if found.get(name) != value:
            raise SaeGraphsError(
                f"a worker has {name} {found.get(name)!r:.60}, and the first one {value!r:.60}; "
                "give all machines the same model, SAEs and version of sae-graphs"
            )


def reason_of(problem: Exception) -> str:
    """What a worker died of, in one line: the error that was raised there, or what Ray says last,
    after whose worker it was and the trace."""
    cause = getattr(problem, "cause", None)
    if isinstance(cause, Exception):
        line = " ".join(f"{type(cause).__name__}: {cause}".split())
    elif found := re.search(r'^\s*details = "(.+)"$', str(problem), re.MULTILINE):  # as gRPC says
        line = found[1]
    else:
        lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
        line = lines[-1] if lines else type(problem).__name__
    return shortened(visible(line, space=" "), 300)


def _check_reached(address: str) -> None:
    """Raise `OSError` where nobody listens: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isascii() and port.isdigit():
        socket.create_connection((host, int(port)), timeout=REACHED_SECONDS).close()


def lost(
    batch: Sequence[Asked],
    losses: dict[str, int],
    batches: deque[Sequence[Asked]],
    problem: Exception,
) -> Iterator[Rows]:
    """The prompts of a batch that was lost go back one by one, but those lost too often."""
    for each in batch:
        losses[each.id] = losses.get(each.id, 0) + 1
        if losses[each.id] < TRIES:
            batches.append([each])
        else:
            yield failure_of(each, f"lost with {TRIES} workers: {reason_of(problem)}")
