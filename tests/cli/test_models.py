"""`sae-graphs models`: what can be loaded by name, as text and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sae_graphs.cli.models import models
from sae_graphs.cli.options import Report
from sae_graphs.errors import SaeGraphsError
from tests.support.hub_cache import build
from tests.support.hub_server import fake_hub
from tests.support.stacks import one_line

RELEASE = "gpt2-small-res-jb"


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_what_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    models("gemma-2-2b")
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert lines[0] == "gemma-2-2b, 26 blocks"
    assert lines[1] == "* --saes gemma-scope-2b-pt-res-canonical"  # the default comes first
    assert lines[2] == "  --sae-pattern 'layer_{layer}/width_16k/canonical'"
    assert lines[3].strip().startswith("26 SAEs (resid_post), 16,384 features each; ? to fetch;")
    assert "7492MiB of memory, 577MiB two at a time" in lines[3]
    assert lines[4].strip() == "on Neuronpedia, as gemma-2-2b/0-gemmascope-res-16k"
    assert "13 of them on Neuronpedia" in shown.out
    assert shown.err.strip() == "sizes are of what is here: HF_HUB_OFFLINE is set"


def test_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    models(RELEASE, Report.json)
    (found,) = json.loads(capsys.readouterr().out)
    assert found["model"] == "gpt2-small"
    assert found["is_default"]
    assert found["sae_pattern"] is None
    assert (len(found["hooks"]), found["hooks"][-1]) == (13, "blocks.11.hook_resid_post")
    assert found["neuronpedia"][12] == "gpt2-small/12-res-jb"
    assert found["download_bytes"] is None


@pytest.mark.slow
def test_sizes_from_the_hub(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    build(tmp_path / "served", "gpt2-small")
    with fake_hub(tmp_path / "served") as hub, hub.in_use(tmp_path / "own"):
        models(RELEASE)
    shown = capsys.readouterr()
    heading, _, line, *_ = shown.out.splitlines()
    assert heading == "gpt2-small, 12 blocks, 475MiB of memory for its weights"  # 4 x 124,439,808
    assert "1MiB to fetch" in line
    assert "?" not in line
    assert not shown.err


def test_asking_leaves_no_trace(tmp_path: Path) -> None:
    """Many requests at once, each of them by libraries that are told to stay offline meanwhile."""
    from huggingface_hub import constants
    from sae_lens.loading import pretrained_sae_loaders as loaders

    asked = loaders.get_safetensors_tensor_shapes
    with fake_hub(tmp_path) as hub:
        pass  # it is gone
    with hub.in_use(tmp_path / "own"):
        models("gemma-3")
        assert not constants.HF_HUB_OFFLINE
    assert loaders.get_safetensors_tensor_shapes is asked


def test_nothing_of_that_name() -> None:
    with pytest.raises(SaeGraphsError, match="is called like 'nothing'") as caught:
        models("nothing")
    one_line(caught)
