"""Workers of a Ray cluster that measure prompts: each loads the model once and takes batches.

A batch whose worker is lost is given to another; where one prompt is lost with three workers, it is
that prompt that fails. The driver writes; nothing is read from the workers' disks.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sae_graphs.atlas.prompts import Asked
from sae_graphs.atlas.rows import Rows, failure_of
from sae_graphs.effects.settings import GraphSettings
from sae_graphs.errors import SaeGraphsError

LOCAL = "local"
BATCH = 8  # prompts that a worker takes at once
REACHED_SECONDS = 10  # in which a cluster answers
TRIES = 3  # workers that may be lost with a prompt


class Worker:
    """What an actor runs: the model, loaded once."""

    def __init__(
        self, loading: Mapping[str, Any], settings: GraphSettings, intervention: str | None
    ) -> None:
        import torch

        from sae_graphs.atlas.measure import Here
        from sae_graphs.late import named

        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        given = dict(loading)
        self._here = Here(named("load")(given.pop("model"), **given), settings, intervention)

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
        self,
        address: str,
        loading: Mapping[str, Any],
        settings: GraphSettings,
        intervention: str | None,
        workers: int | None,
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
        self._arguments = (dict(loading), settings, intervention)
        self._wanted = workers
        self._workers: list[Any] = []

    def __enter__(self) -> Cluster:
        ray = self._ray
        options = {"log_to_driver": False, "logging_level": "warning"}
        try:
            if self._address == LOCAL:
                ray.init(
                    num_cpus=self._wanted,
                    include_dashboard=False,
                    _node_ip_address="127.0.0.1",  # for this machine alone
                    **options,
                )
            else:
                _check_reached(self._address)
                ray.init(self._address, **options)
        except (OSError, ValueError, RuntimeError) as problem:
            reason = " ".join(str(problem).split())[:120]
            raise SaeGraphsError(
                f"no Ray cluster at {self._address!r} ({reason}); give local, or an address such "
                "as ray://host:10001"
            ) from problem
        number = self._wanted or int(ray.cluster_resources().get("CPU", 1))
        self._workers = [self._started() for _ in range(number)]
        return self

    def _started(self) -> Any:
        """A worker, which loads the model now."""
        return self._ray.remote(num_cpus=1)(Worker).remote(*self._arguments)

    def __exit__(self, *problem: object) -> None:
        self._ray.shutdown()

    def processes(self) -> list[int]:
        """The numbers of the workers' processes, once they are there."""
        return list(self._ray.get([worker.process.remote() for worker in self._workers]))

    def facts(self) -> Mapping[str, Any]:
        """See `Measuring`: as the first worker has them."""
        try:
            held: Mapping[str, Any] = self._ray.get(self._workers[0].facts.remote())
        except self._ray.exceptions.RayError as problem:
            reason = str(problem).strip().splitlines()[-1]
            raise SaeGraphsError(f"a worker could not load the model: {reason}") from problem
        return held

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
            (ready,), _ = ray.wait(list(running), num_returns=1)
            worker, batch = running.pop(ready)
            try:
                found = ray.get(ready)
            except ray.exceptions.RayError as problem:  # another takes its place
                place, worker = self._workers.index(worker), self._started()
                self._workers[place] = worker
                found = lost(batch, losses, batches, problem)
            idle.append(worker)
            yield from found


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
            reason = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
            yield failure_of(each, f"lost with {TRIES} workers: {reason}")
