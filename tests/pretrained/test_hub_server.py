"""The hub that tests run against answers the hub's own library as the real one does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi, errors, hf_hub_download, snapshot_download
from sae_lens.loading.pretrained_sae_loaders import get_safetensors_tensor_shapes

from tests.support.hub_cache import snapshot_of
from tests.support.hub_server import FakeHub, fake_hub

REPO, WEIGHTS = "someone/some-saes", "layer_0/sae_weights.safetensors"
LENGTH = 300_000


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    files = {WEIGHTS: os.urandom(LENGTH), "layer_0/cfg.json": b'{"d_in": 4}'}
    for name, content in files.items():
        at = snapshot_of(tmp_path / "remote", REPO) / name
        at.parent.mkdir(exist_ok=True)
        at.write_bytes(content)
    with fake_hub(tmp_path / "remote") as served, served.in_use(tmp_path / "home"):
        yield served


def test_files_arrive_whole_and_stay(hub: FakeHub, tmp_path: Path) -> None:
    there = snapshot_of(hub.home, REPO)
    for name in (WEIGHTS, "layer_0/cfg.json"):
        here = Path(hf_hub_download(REPO, name))
        assert here.is_relative_to(tmp_path / "home" / "hub")
        assert here.read_bytes() == (there / name).read_bytes()
    assert hub.sent == LENGTH + 11
    hf_hub_download(REPO, WEIGHTS)  # asked again whether it has changed
    assert (hub.sent, hub.methods["GET"]) == (LENGTH + 11, 2)


def test_a_description_has_the_sizes_where_asked(hub: FakeHub) -> None:
    sizes = {"layer_0/cfg.json": 11, WEIGHTS: LENGTH}
    info = HfApi().model_info(REPO, files_metadata=True)
    assert {file.rfilename: file.size for file in info.siblings or ()} == sizes
    bare = HfApi().model_info(REPO)
    assert {file.rfilename: file.size for file in bare.siblings or ()} == dict.fromkeys(sizes)
    assert info.sha == snapshot_of(hub.home, REPO).name
    tree = HfApi().list_repo_tree(REPO, recursive=True)
    assert {at.path: at.size for at in tree if hasattr(at, "size")} == sizes


def test_all_files_at_once(hub: FakeHub) -> None:
    folder = Path(snapshot_download(REPO))
    assert (folder / WEIGHTS).stat().st_size == LENGTH


def test_a_cut_is_gone_on_with_after_the_last_whole_piece(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 40_000)
    hub.cuts[REPO, WEIGHTS] = 100_000
    here = Path(hf_hub_download(REPO, WEIGHTS))
    assert here.read_bytes() == (snapshot_of(hub.home, REPO) / WEIGHTS).read_bytes()
    parts = [(a.range, a.sent) for a in hub.asked if a.sent]
    assert parts == [(None, 100_000), ("bytes=80000-", 220_000)]


def test_a_gated_repository_gives_its_files_to_those_allowed(hub: FakeHub) -> None:
    hub.gated.add(REPO)
    assert HfApi().model_info(REPO).gated == "manual"  # anyone may know that it is there
    with pytest.raises(errors.GatedRepoError):
        hf_hub_download(REPO, WEIGHTS, token=False)
    hub.tokens.add("hf_mine")
    with pytest.raises(errors.GatedRepoError) as refused:
        hf_hub_download(REPO, WEIGHTS, token="hf_other")
    assert refused.value.response.status_code == 403
    assert hub.sent == 0
    hf_hub_download(REPO, WEIGHTS, token="hf_mine")
    stored = [request for request in hub.asked if request.sent]
    assert [request.authorized for request in stored] == [False]  # no token for the other host


def test_what_is_not_there(hub: FakeHub) -> None:
    with pytest.raises(errors.RepositoryNotFoundError):
        hf_hub_download("someone/else", WEIGHTS)
    with pytest.raises(errors.RepositoryNotFoundError):
        HfApi().model_info("someone/else", files_metadata=True)
    with pytest.raises(errors.RemoteEntryNotFoundError):
        hf_hub_download(REPO, "layer_1/cfg.json")
    with pytest.raises(errors.RevisionNotFoundError):
        hf_hub_download(REPO, WEIGHTS, revision="old")
    hub.absent.add((REPO, WEIGHTS))
    with pytest.raises(errors.RemoteEntryNotFoundError):
        hf_hub_download(REPO, WEIGHTS)


def test_a_failing_repository_is_tried_again_and_then_given_up(hub: FakeHub) -> None:
    hub.failing[REPO] = 503
    with pytest.raises(errors.LocalEntryNotFoundError) as failed:
        hf_hub_download(REPO, WEIGHTS)
    cause = failed.value.__cause__
    assert isinstance(cause, errors.HfHubHTTPError)
    assert cause.response.status_code == 503
    assert len(hub.asked) == 7
    with pytest.raises(errors.HfHubHTTPError):
        HfApi().model_info(REPO)
    hub.failing.clear()
    assert Path(hf_hub_download(REPO, WEIGHTS)).is_file()


def test_a_slow_hub_is_waited_for_or_not(hub: FakeHub) -> None:
    hub.seconds = 0.3
    with pytest.raises(Exception, match="timed out"):
        HfApi().model_info(REPO, timeout=0.05)
    assert HfApi().model_info(REPO, timeout=5).id == REPO


def test_headers_are_read_by_ranges(hub: FakeHub) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"w_enc": torch.zeros(4, 6)}, snapshot_of(hub.home, REPO) / WEIGHTS)
    assert get_safetensors_tensor_shapes(REPO, WEIGHTS) == {"w_enc": [4, 6]}
    metadata = HfApi().parse_safetensors_file_metadata(REPO, WEIGHTS)
    assert metadata.tensors["w_enc"].shape == [4, 6]
    assert all(request.range for request in hub.asked if request.sent)


@pytest.mark.slow
def test_another_process_can_use_it(hub: FakeHub, tmp_path: Path) -> None:
    import subprocess
    import sys

    program = f"import huggingface_hub as h; print(h.hf_hub_download({REPO!r}, {WEIGHTS!r}))"
    environment = {**os.environ, **hub.environment(tmp_path / "own")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60
    )
    assert Path(done.stdout.strip()).is_relative_to(tmp_path / "own"), done.stderr
