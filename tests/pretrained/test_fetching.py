"""From a hub to a graph: what is fetched is planned and shown, and gone on with; one line else.

The hub is on this machine (tests/hub_server.py) and serves generated weights under real names.
"""

from __future__ import annotations

import shutil
from collections import namedtuple
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import sae_graphs as sg
from sae_graphs.errors import HubError, SaeGraphsError
from sae_graphs.model.shelf import HubFile
from sae_graphs.pretrained import download as resumable
from sae_graphs.pretrained import fetching
from sae_graphs.pretrained import models as hub_models
from sae_graphs.pretrained.catalogue import listed_stacks, with_sizes
from sae_graphs.pretrained.fetching import Fetch, plan_fetch, run_fetch
from sae_graphs.pretrained.find_saes import find_saes
from sae_graphs.pretrained.hub import MARGIN, cached, cached_files, check_disk, fetch
from sae_graphs.pretrained.models import files_of_model
from tests.support.effect_graphs import effect_graph
from tests.support.hub_cache import STACKS, snapshot_of
from tests.support.hub_server import FakeHub, fake_hub
from tests.support.stacks import one_line

MODEL, RELEASE, REPO = "gpt2-small", "gpt2-small-res-jb", "jbloom/GPT2-Small-SAEs-Reformatted"
FEATURES = STACKS[MODEL].n_features
WEIGHTS = "blocks.5.hook_resid_pre/sae_weights.safetensors"


class Watch:
    """What a user is shown of a fetch."""

    def __init__(self) -> None:
        self.plans: list[tuple[Fetch, int | None]] = []
        self.told: list[tuple[int, int]] = []

    def __call__(self, plan: Fetch, least: int | None) -> AbstractContextManager[Any]:
        self.plans.append((plan, least))
        return self._told()

    @contextmanager
    def _told(self) -> Iterator[Any]:
        yield lambda done, total: self.told.append((done, total))


# -- the whole way ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_model_by_name_is_fetched_once(hub: FakeHub, home: Path) -> None:
    watch = Watch()
    model = sg.load(MODEL, fetching=watch)
    few: dict[str, Any] = {"layers": ("2", "4"), "min_path_edges": 1}
    graph = effect_graph(model, "Copyright (C", **few)
    assert graph.edges
    assert model.stack.name == RELEASE
    assert [layer.label for layer in model.stack.layers] == [str(n) for n in range(13)]

    (plan, least), *more = watch.plans
    assert not more
    assert plan.words.startswith("fetching the model gpt2 (")
    assert f"and 13 SAEs of {RELEASE} (" in plan.words
    assert str(home) in plan.words
    assert model.memory_plan is not None
    assert least == model.memory_plan.least  # foretold from the hub's headers alone
    total = sum(file.size or 0 for file in plan.files)
    assert watch.told[-1] == (total, total)
    done = [at for at, _ in watch.told]
    assert done == sorted(done)
    assert hub.sent >= total

    before = len(hub.asked)
    again = sg.load(MODEL, fetching=watch)
    assert len(hub.asked) == before  # no request at all
    assert len(watch.plans) == 1
    assert effect_graph(again, "Copyright (C", **few).edges == graph.edges


@pytest.mark.slow
def test_a_model_alone_fetches_no_saes(hub: FakeHub) -> None:
    watch = Watch()
    model = sg.load_model(MODEL, fetching=watch)
    (plan, least), *more = watch.plans
    assert not more
    assert (plan.words.startswith("fetching the model gpt2 ("), "SAE" in plan.words) == (
        True,
        False,
    )
    assert model.memory_plan is not None
    assert least == model.memory_plan.least
    assert cached_files("gpt2")
    assert not cached_files(REPO)
    before = len(hub.asked)
    again = sg.load_model(MODEL)
    assert len(hub.asked) == before
    assert torch.equal(again.run("Copyright (C").logits, model.run("Copyright (C").logits)


@pytest.mark.slow
def test_only_the_layers_asked_for_are_fetched(hub: FakeHub) -> None:
    watch = Watch()
    model = sg.load(MODEL, layers=("3", "5"), fetching=watch)
    assert [layer.label for layer in model.stack.layers] == ["3", "4", "5"]
    assert watch.plans[0][0].n_saes == 3
    held = {name.partition("/")[0] for name in cached_files(REPO)}
    assert held == {f"blocks.{block}.hook_resid_pre" for block in (3, 4, 5)}
    part = effect_graph(model, "Copyright (C", layers=("3", "5"))
    whole = effect_graph(sg.load(MODEL), "Copyright (C", layers=("3", "5"))
    assert part.edges == whole.edges


@pytest.mark.slow
@pytest.mark.usefixtures("served_gemma")
def test_only_the_saes_chosen_are_fetched(hub: FakeHub) -> None:
    stack = STACKS["gemma-2-2b"]
    _, sources = find_saes(stack.release, stack.pattern, device="cpu", dtype="float32")
    plan = plan_fetch(stack.model, stack.release, sources, local=False)
    run_fetch(plan)
    names = [name for name in cached_files(stack.entry.repo_id) if name.endswith(".npz")]
    assert len(names) == 26
    assert all("width_16k" in name for name in names)


# -- stopped and gone on ---------------------------------------------------------------------------


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> HubFile:
    """A file that counts as large, sent in small pieces."""
    monkeypatch.setattr(resumable, "LEAST_BYTES", 1)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 512)
    return HubFile(REPO, WEIGHTS, 4760)


def test_half_a_file_is_gone_on_with(hub: FakeHub, served: Path, large: HubFile) -> None:
    original = snapshot_of(served, REPO) / WEIGHTS
    size = original.stat().st_size
    told: list[int] = []

    def stop(done: int, total: int) -> None:
        told.append(done)
        if done > size // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch([HubFile(REPO, WEIGHTS, size)], "SAEs", stop)
    assert cached(REPO, WEIGHTS) is None
    assert 0 < told[-1] < size
    hub.asked.clear()
    fetch([HubFile(REPO, WEIGHTS, size)], "SAEs", lambda done, total: told.append(done))
    ranges = [request.range for request in hub.asked if request.method == "GET" and request.range]
    assert len(ranges) == 1
    kept = int(ranges[0].removeprefix("bytes=").rstrip("-"))
    assert kept >= size // 2 - 512  # all but the piece that was told of last
    assert hub.sent == size - kept
    at = cached(REPO, WEIGHTS)
    assert at is not None
    assert at.read_bytes() == original.read_bytes()
    assert told[-1] == size


def test_a_connection_that_breaks_off_is_taken_up_again(
    hub: FakeHub, served: Path, large: HubFile
) -> None:
    hub.cuts[REPO, WEIGHTS] = 2000
    fetch([large], "SAEs", lambda done, total: None)
    at = cached(REPO, WEIGHTS)
    assert at is not None
    assert at.read_bytes() == (snapshot_of(served, REPO) / WEIGHTS).read_bytes()


def test_what_arrives_damaged_is_not_kept(hub: FakeHub, home: Path, large: HubFile) -> None:
    """Half a file from elsewhere: the whole does not have the hash that the hub names."""
    hub.cuts[REPO, WEIGHTS] = 3000

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch([large], "SAEs", stop)
    (part,) = home.rglob("*.part")
    part.write_bytes(b"x" * 100)
    with pytest.raises(HubError, match="arrived damaged") as caught:
        fetch([large], "SAEs", lambda done, total: None)
    one_line(caught)
    assert cached(REPO, WEIGHTS) is None
    fetch([large], "SAEs", lambda done, total: None)
    assert cached(REPO, WEIGHTS) is not None


@pytest.mark.slow
def test_a_fetch_that_failed_keeps_what_is_whole(hub: FakeHub) -> None:
    hub.absent.add((REPO, WEIGHTS))
    with pytest.raises(HubError, match=f"{REPO} has no {WEIGHTS}") as caught:
        sg.load(MODEL)
    one_line(caught)
    kept = [*cached_files("gpt2"), *cached_files(REPO)]
    assert "config.json" in kept  # small files come first
    hub.absent.clear()
    watch = Watch()
    sg.load(MODEL, fetching=watch)
    assert not {file.name for file in watch.plans[0][0].files} & set(kept)


def test_half_a_file_is_counted_as_here(
    hub: FakeHub, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what a disk has to have."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, MARGIN + 4000))
    with pytest.raises(HubError, match="do not fit"):
        check_disk([HubFile(REPO, WEIGHTS, 4760)])
    blobs = home / "hub" / f"models--{REPO.replace('/', '--')}" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "abc.part").write_bytes(b"x" * 1000)
    check_disk([HubFile(REPO, WEIGHTS, 4760)])


@pytest.mark.slow
def test_a_tokenizer_that_is_half_here(hub: FakeHub) -> None:
    """Weights alone are not a model; what is missing of it is fetched, and nothing else."""
    sg.load(MODEL)
    at = cached("gpt2", "tokenizer_config.json")
    assert at is not None
    at.unlink()
    hub.asked.clear()
    sg.load(MODEL)
    assert cached("gpt2", "tokenizer_config.json") is not None
    whole = [request for request in hub.asked if request.sent and not request.range]
    assert {request.path.rpartition("/")[2] for request in whole} <= {"tokenizer_config.json"}


def test_a_model_without_a_tokenizer_s_configuration(
    served: Path, home: Path, tmp_path: Path
) -> None:
    """Not every model has one: the hub is asked once, and not again."""
    other = tmp_path / "served"
    shutil.copytree(served, other)
    (snapshot_of(other, "gpt2") / "tokenizer_config.json").unlink()
    with fake_hub(other) as hub, hub.in_use(home):
        files = files_of_model("gpt2")
        fetch(files, "model 'gpt2'", lambda done, total: None)
        asked = len(hub.asked)
        plan = plan_fetch("gpt2", "none", [], local=False)
        assert not plan.files
        assert len(hub.asked) == asked


@pytest.mark.slow
def test_a_repository_that_has_moved_on(
    hub: FakeHub, served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody asks whether there is a newer commit of what is here."""
    sg.load(MODEL)
    monkeypatch.setattr(FakeHub, "snapshot", lambda self, repo_id: None)
    with_sizes(listed_stacks(RELEASE))
    assert sg.load(MODEL).stack.name == RELEASE


# -- refused before it is fetched ------------------------------------------------------------------


def test_too_little_memory(hub: FakeHub) -> None:
    with pytest.raises(SaeGraphsError, match="is too little: the libraries take") as caught:
        sg.load(MODEL, memory="700MiB")
    one_line(caught)
    headers = [request for request in hub.asked if request.sent]
    assert all(request.range for request in headers)  # the beginning of files, and no file
    assert not cached_files("gpt2")


def test_too_little_disk(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 10**6, 10**6))
    with pytest.raises(HubError, match=r"do not fit on the disk .* set HF_HOME") as caught:
        sg.load(MODEL)
    one_line(caught)
    assert not cached_files("gpt2")


def test_saes_of_another_width(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told from the configurations, before anything large is fetched."""
    monkeypatch.setattr(fetching, "SMALL", 4000)
    monkeypatch.setattr(hub_models, "width_of", lambda model: 32)
    with pytest.raises(SaeGraphsError, match="reads 16 dimensions, gpt2 has 32") as caught:
        sg.load(MODEL)
    one_line(caught)
    assert cached("gpt2", "config.json") is not None
    assert cached("gpt2", "model.safetensors") is None


def test_a_missing_sae_of_a_release(served: Path, home: Path, tmp_path: Path) -> None:
    other = tmp_path / "served"
    shutil.copytree(served, other)
    (snapshot_of(other, REPO) / WEIGHTS).unlink()
    with fake_hub(other) as hub, hub.in_use(home):
        with pytest.raises(HubError, match=f"{REPO} has no {WEIGHTS}") as caught:
            sg.load(MODEL)
        assert "--sae-pattern" in one_line(caught)
        assert not cached_files("gpt2")  # found before anything was fetched


def test_a_gated_model(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "")
    hub.gated.add("gpt2")
    with pytest.raises(HubError, match=r"is gated; accept its terms on .* HF_TOKEN") as caught:
        sg.load(MODEL)
    assert "https://huggingface.co/gpt2" in one_line(caught)
    assert hub.sent < 10_000


@pytest.mark.parametrize(
    ("model", "saes", "message"),
    [
        ("nobody/nothing", RELEASE, "the hub knows no nobody/nothing, or it is private"),
        (MODEL, "nobody/saes", r"no folder of SAEs is called 'nobody.saes', and on .* knows no"),
        ("not a name", RELEASE, "is not the name of a repository"),
    ],
)
def test_what_the_hub_does_not_know(hub: FakeHub, model: str, saes: str, message: str) -> None:
    with pytest.raises(HubError, match=message) as caught:
        sg.load(model, saes=saes)
    one_line(caught)


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_hub_that_fails(hub: FakeHub, status: int) -> None:
    hub.failing[REPO] = status
    with pytest.raises(HubError, match=f"the hub answers {status} for .* run the same again") as e:
        sg.load(MODEL)
    one_line(e)


def test_no_network(home: Path) -> None:
    with fake_hub(home) as hub:
        pass  # it is gone
    with hub.in_use(home), pytest.raises(HubError, match="check the network") as caught:
        sg.load(MODEL)
    one_line(caught)


def test_offline_without_a_cache(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match=r"is not in the cache .* HF_HUB_OFFLINE") as caught:
        sg.load(MODEL)
    one_line(caught)
    assert not hub.asked


@pytest.mark.slow
def test_offline_with_half_a_cache(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    sg.load(MODEL, layers=("0", "3"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub.asked.clear()
    assert len(sg.load(MODEL, layers=("0", "3")).stack.layers) == 4
    with pytest.raises(HubError, match=r"blocks\.4\.hook_resid_pre of .* is not in the cache"):
        sg.load(MODEL)
    assert not hub.asked
