"""Repositories that sae-lens does not list, and the sizes of all that it does."""

from __future__ import annotations

import json
import shutil
from io import StringIO
from pathlib import Path
from unittest import mock

import pytest

import sae_graphs as sg
from sae_graphs.errors import SaeGraphsError, SAELoadError
from sae_graphs.model.memory import SAESize
from sae_graphs.pretrained.catalogue import listed_stacks, with_sizes
from sae_graphs.pretrained.fetching import plan_fetch
from sae_graphs.pretrained.find_saes import find_saes
from tests.support.hub_cache import STACKS, snapshot_of
from tests.support.hub_server import FakeHub, fake_hub
from tests.support.stacks import one_line

MODEL, RELEASE, REPO = "gpt2-small", "gpt2-small-res-jb", "jbloom/GPT2-Small-SAEs-Reformatted"
FEATURES = STACKS[MODEL].n_features
WEIGHTS = "blocks.5.hook_resid_pre/sae_weights.safetensors"


# -- repositories that sae-lens does not list, other models ----------------------------------------


@pytest.mark.slow
def test_a_repository_of_one_s_own(served: Path, home: Path, tmp_path: Path) -> None:
    """Folders with cfg.json; where each stands is told by its metadata alone."""
    other = tmp_path / "served"
    shutil.copytree(served, other)
    mine = snapshot_of(other, "me/my-saes")
    for number, block in enumerate((2, 3, 4)):
        folder = snapshot_of(served, REPO) / f"blocks.{block}.hook_resid_pre"
        shutil.copytree(folder, mine / "run" / "abc"[number])
    with fake_hub(other) as hub, hub.in_use(home):
        model = sg.load(MODEL, saes="me/my-saes")
        assert [layer.point.block for layer in model.stack.layers] == [2, 3, 4]
        assert model.stack.name == "me/my-saes"
        few = sg.load(MODEL, saes="me/my-saes", sae_pattern="run/*")
        assert len(few.stack.layers) == 3
        asked = len(hub.asked)
    with hub.in_use(home), mock.patch("huggingface_hub.constants.HF_HUB_OFFLINE", new=True):
        again = sg.load(MODEL, saes="me/my-saes")
        assert len(again.stack.layers) == 3
    assert len(hub.asked) == asked


@pytest.mark.slow
def test_layers_of_a_repository_of_one_s_own(served: Path, home: Path, tmp_path: Path) -> None:
    """Called alike whatever of it is here: the first SAE makes those after blocks count on."""
    other = tmp_path / "served"
    shutil.copytree(served, other)
    mine = snapshot_of(other, "me/my-saes")
    for block in range(5):
        name = f"blocks.{block}.hook_resid_{'pre' if block == 0 else 'post'}"
        folder = mine / name
        shutil.copytree(snapshot_of(served, REPO) / "blocks.0.hook_resid_pre", folder)
        cfg = json.loads((folder / "cfg.json").read_text())
        key = "hook_name" if "hook_name" in cfg else "hook_point"
        (folder / "cfg.json").write_text(json.dumps({**cfg, key: name}))
    with fake_hub(other) as hub, hub.in_use(home):
        for _ in range(2):
            model = sg.load(MODEL, saes="me/my-saes", layers="2:4")
            assert [layer.label for layer in model.stack.layers] == ["2", "3", "4"]
            assert [layer.point.block for layer in model.stack.layers] == [1, 2, 3]
        asked = len(hub.asked)
        sg.load(MODEL, saes="me/my-saes", layers=(3, 4))
        assert len(hub.asked) == asked


@pytest.mark.slow
def test_layers_where_names_tell_nothing(served: Path, home: Path, tmp_path: Path) -> None:
    other = tmp_path / "served"
    shutil.copytree(served, other)
    for number, block in enumerate((2, 3, 4)):
        folder = snapshot_of(served, REPO) / f"blocks.{block}.hook_resid_pre"
        shutil.copytree(folder, snapshot_of(other, "me/my-saes") / "abc"[number])
    with fake_hub(other) as hub, hub.in_use(home):
        model = sg.load(MODEL, saes="me/my-saes", layers="3:4")
        assert [layer.label for layer in model.stack.layers] == ["3", "4"]
        with pytest.raises(SaeGraphsError, match="no SAE layer '99'"):
            sg.load(MODEL, saes="me/my-saes", layers="3:99")


@pytest.mark.slow
def test_an_sae_that_is_not_where_its_release_puts_it(
    served: Path, home: Path, tmp_path: Path
) -> None:
    other = tmp_path / "served"
    shutil.copytree(served, other)
    file = snapshot_of(other, REPO) / "blocks.5.hook_resid_pre" / "cfg.json"
    file.write_text(file.read_text().replace("resid_pre", "resid_mid"))
    with fake_hub(other) as hub, hub.in_use(home):
        with pytest.raises(SAELoadError, match=r"says of itself .*\.hook_resid_mid") as caught:
            sg.load(MODEL)
        one_line(caught)


@pytest.mark.usefixtures("served_pythia")
def test_saes_of_another_model_are_told(hub: FakeHub, logged: StringIO) -> None:
    with pytest.raises(SaeGraphsError, match="1MiB of memory is too little"):
        sg.load(MODEL, saes=STACKS["pythia-70m-deduped"].release, memory="1MiB")
    assert "these SAEs were trained on pythia-70m-deduped, not on gpt2" in logged.getvalue()


# -- the catalogue ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_sizes_in_the_catalogue(hub: FakeHub, served: Path) -> None:
    (before,), problem = with_sizes(listed_stacks("gpt2-small-res-jb")[:1])
    assert problem is None
    assert (before.d_in, before.width) == (16, FEATURES)
    files = [f for f in snapshot_of(served, REPO).rglob("*") if f.is_file()]
    needed = sum(f.stat().st_size for f in files if f.name in ("cfg.json", WEIGHTS.split("/")[1]))
    assert needed - 2000 < (before.download or 0) <= needed  # the first configuration is here now
    sg.load(MODEL)
    (after,), _ = with_sizes(listed_stacks("gpt2-small-res-jb")[:1])
    assert after.download == 0
    assert after.memory() == 13 * 4 * (2 * 16 * FEATURES + 16 + 2 * FEATURES)


def test_what_the_hub_does_not_have_is_an_answer(hub: FakeHub) -> None:
    """The first releases of Gemma are not there; sizes of GPT-2's are told all the same."""
    names = ("gemma-2-2b-res-matryoshka-dc", "gemma-2-9b-res-matryoshka-dc", RELEASE)
    stacks = [s for name in names for s in listed_stacks(name)[:1]]
    for _ in range(3):
        found, problem = with_sizes(stacks)
        assert problem is None
        assert [stack.download is None for stack in found] == [True, True, False]
        assert found[2].width == FEATURES


def test_the_catalogue_without_a_network(home: Path) -> None:
    with fake_hub(home) as hub:
        pass
    with hub.in_use(home):
        found, problem = with_sizes(listed_stacks("gpt2"))
    assert problem is not None
    assert "\n" not in problem
    assert [stack.download for stack in found] == [None] * len(found)
    assert found[1].width == 131072


def test_the_size_that_is_foretold(hub: FakeHub) -> None:
    """From the header of a file on the hub: as large as what is loaded then."""
    _, sources = find_saes(RELEASE, device="cpu", dtype="bfloat16")
    plan = plan_fetch("gpt2", RELEASE, sources, local=True)
    n_weights = 2 * 16 * FEATURES + 16 + 2 * FEATURES  # with a scaling factor, as of old
    assert plan.sae_size == SAESize(2 * n_weights, loading=4 * n_weights)
