"""What names tell: in every release that sae-lens lists, and in repositories that it does not."""

from __future__ import annotations

from functools import cache

import pytest

from sae_graphs.errors import SAELoadError
from sae_graphs.model.stream import StreamPoint
from sae_graphs.pretrained.catalogue import ListedStack, listed_stacks
from sae_graphs.pretrained.find_saes import find_saes
from sae_graphs.pretrained.models import official_name
from sae_graphs.pretrained.releases import (
    DEFAULTS,
    all_releases,
    default_saes,
    release_named,
    release_of_repository,
    releases_in,
)
from tests.support.stacks import one_line


@cache
def stacks() -> dict[tuple[str, str | None], ListedStack]:
    """All that are listed, by release and pattern."""
    return {(found.release, found.pattern): found for found in reversed([*listed_stacks()])}


def stack(release: str, pattern: str | None = None) -> ListedStack:
    return stacks()[release, pattern]


# -- every release that ECOSYSTEM names, by sae-lens's own directory -------------------------------


@pytest.mark.parametrize(
    ("release", "pattern", "blocks", "sites"),
    [
        ("gpt2-small-res-jb", None, 12, ("pre", "post")),
        ("gpt2-small-resid-post-v5-32k", None, 12, ("post",)),
        ("gpt2-small-resid-mid-v5-128k", None, 12, ("mid",)),
        ("pythia-70m-deduped-res-sm", None, 6, ("pre", "post")),
        ("gemma-scope-2b-pt-res-canonical", "layer_{layer}/width_16k/canonical", 26, ("post",)),
        ("gemma-scope-9b-pt-res", "layer_{layer}/width_16k/average_l0_{l0:70}", 42, ("post",)),
        ("gemma-scope-2-270m-pt-res-all", "layer_{layer}_width_16k_l0_big", 18, ("post",)),
        ("gemma-scope-2-27b-it-res-all", "layer_{layer}_width_262k_l0_small", 62, ("post",)),
        ("llama_scope_lxr_8x", None, 32, ("post",)),
        ("llama_scope_r1_distill", "l{layer}r_800m_openr1_math", 32, ("post",)),
        ("qwen-scope-3-1.7b-base-w32k-l50", None, 28, ("post",)),
    ],
)
def test_a_stack_is_found(
    release: str, pattern: str | None, blocks: int, sites: tuple[str, ...]
) -> None:
    found = stack(release, pattern)
    assert (found.n_blocks, found.sites) == (blocks, sites)
    points = [sae.point for sae in found.saes if sae.point is not None]
    assert {point.block for point in points} == set(range(blocks))
    assert len({point.depth for point in points}) == len(points) == len(found.saes)


def test_nearly_every_layer_will_do() -> None:
    found = stack("gemma-2-2b-res-matryoshka-dc")
    assert (len(found.saes), found.n_blocks, found.width) == (25, 26, 32768)
    assert len(found.neuronpedia) == 13


def test_what_is_not_on_the_residual_stream_is_left_out() -> None:
    held = {release.name for release in all_releases() if release.residual}
    words = ("-att", "-mlp", "hook-z", "transcoder", "_lxa_", "_lxm_", "-clt-")
    assert not [name for name in held if any(word in name for word in words)]
    assert {found.release for found in listed_stacks()} <= held
    few = {"gemma-2b-res-jb", "gpt2-small-res_sce-ajt", "gemma-scope-2-1b-pt-res"}
    assert few <= held  # some layers only
    assert not few & {found.release for found in listed_stacks()}


def test_where_an_sae_stands_agrees_with_its_neuronpedia_id() -> None:
    """Two sources that sae-lens keeps apart. After the last block the id may count one further."""
    compared = 0
    for release in all_releases():
        for sae in release.residual:
            layer = (sae.neuronpedia_id or "").rpartition("/")[2].partition("-")[0]
            if sae.point is None or not layer.isdigit():
                continue
            further = release.name == "gpt2-small-res-jb" and sae.point.site == "post"
            assert int(layer) == sae.point.block + further, (release.name, sae.sae_id)
            compared += 1
    assert compared > 1000


def test_an_id_of_another_layer_is_not_believed() -> None:
    """The directory gives an SAE of layer 2 the page of one of layer 20."""
    release = release_named("gemma-scope-9b-pt-res")
    assert release is not None
    held = {sae.sae_id: sae.neuronpedia_id for sae in release.saes}
    assert held["layer_2/width_16k/average_l0_8"] is None
    assert held["layer_1/width_16k/average_l0_69"] == "gemma-2-9b/1-gemmascope-res-16k__l0-69"


def test_no_residual_sae_has_the_id_of_another_kind() -> None:
    for release in all_releases():
        for sae in release.residual:
            source = (sae.neuronpedia_id or "").rpartition("/")[2]
            assert "-att" not in source, (release.name, sae.sae_id)
            assert "-mlp" not in source, (release.name, sae.sae_id)


@pytest.mark.parametrize(
    ("release", "pattern", "width"),
    [
        ("gemma-scope-2b-pt-res-canonical", "layer_{layer}/width_65k/canonical", 65536),
        ("gemma-scope-2-4b-pt-res-all", "layer_{layer}_width_262k_l0_big", 262144),
        ("gpt2-small-resid-post-v5-128k", None, 131072),
        ("qwen-scope-3.5-27b-w80k-l50", None, 81920),
        ("llama_scope_lxr_32x", None, 131072),
        ("llama_scope_r1_distill", "l{layer}r_800m_slimpajama", 32768),
        ("pythia-70m-deduped-res-sm", None, None),
        ("gpt2-small-res-jb", None, None),
    ],
)
def test_the_width_that_names_tell(release: str, pattern: str | None, width: int | None) -> None:
    assert stack(release, pattern).width == width


def test_memory_by_width() -> None:
    """Two matrices and three vectors, in float32; by hand for 16384 features of 2304 dimensions."""
    from dataclasses import replace

    found = replace(
        stack("gemma-scope-2b-pt-res-canonical", "layer_{layer}/width_16k/canonical"), d_in=2304
    )
    one = 4 * (2 * 2304 * 16384 + 2304 + 2 * 16384)
    assert one == 302_130_176
    assert found.memory() == 26 * one
    assert found.memory("bfloat16", at_once=2) == one
    assert replace(found, d_in=None).memory() is None


# -- defaults --------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", DEFAULTS)
def test_every_default_is_a_stack_of_that_model(model: str) -> None:
    found = stack(*DEFAULTS[model])
    assert found.model.rpartition("/")[2].lower() in (model, "gpt2-small")
    assert found.is_default


def test_models_without_their_owner() -> None:
    for name, official in (
        ("gpt2-small", "gpt2"),
        ("gpt2", "gpt2"),
        ("gemma-2-2b", "google/gemma-2-2b"),
        ("llama-3.1-8b", "meta-llama/Llama-3.1-8B"),
        ("qwen3-8b-base", "Qwen/Qwen3-8B-Base"),
        ("pythia-70m-deduped", "EleutherAI/pythia-70m-deduped"),
        ("someone/gpt2-small", "someone/gpt2-small"),
    ):
        assert official_name(name) == official


def test_models_by_any_of_their_names() -> None:
    for name in ("gpt2", "gpt2-small", "openai-community/gpt2"):
        assert default_saes(name) == ("gpt2-small-res-jb", None)
    assert default_saes("google/gemma-2-2b") == default_saes("gemma-2-2b")
    assert default_saes("google/gemma-2-2b-it") is None


# -- repositories ----------------------------------------------------------------------------------


def test_a_repository_that_is_not_listed() -> None:
    names = ["README.md", "run/layer_0/cfg.json", "run/layer_0/sae_weights.safetensors"]
    names += ["run/layer_1/cfg.json", "blocks.2.hook_resid_pre/cfg.json", "odd/cfg.json"]
    release = release_of_repository("someone/my-res-saes", names)
    points = {sae.sae_id: sae.point for sae in release.saes}
    assert points == {
        "run/layer_0": StreamPoint(0, "post"),
        "run/layer_1": StreamPoint(1, "post"),
        "blocks.2.hook_resid_pre": StreamPoint(2, "pre"),
        "odd": None,
    }
    assert release.files(release.saes[-1]) == (
        "run/layer_1/cfg.json",
        "run/layer_1/sae_weights.safetensors",
    )


def test_a_repository_of_listed_releases() -> None:
    assert releases_in("jbloom/GPT2-Small-SAEs-Reformatted") == ("gpt2-small-res-jb",)
    name, sources = find_saes("jbloom/GPT2-Small-SAEs-Reformatted", device="cpu", dtype="float32")
    assert (name, len(sources)) == ("gpt2-small-res-jb", 13)
    with pytest.raises(SAELoadError, match="several releases of SAEs; name one of") as caught:
        find_saes("google/gemma-scope-2b-pt-res", device="cpu", dtype="float32")
    assert "gemma-scope-2b-pt-res-canonical" in one_line(caught)


def test_a_release_without_residual_saes() -> None:
    with pytest.raises(SAELoadError, match="no SAEs on the residual stream") as caught:
        find_saes("gpt2-small-hook-z-kk", device="cpu", dtype="float32")
    one_line(caught)


def test_the_choices_of_a_real_release() -> None:
    name = "gemma-scope-2b-pt-res-canonical"
    with pytest.raises(SAELoadError, match="several SAEs a layer") as caught:
        find_saes(name, device="cpu", dtype="float32")
    assert "'layer_{layer}/width_16k/canonical' (26 SAEs)" in one_line(caught)
    pattern = "layer_{layer}/width_16k/canonical"
    called, sources = find_saes(name, pattern, device="cpu", dtype="float32")
    assert called == f"{name}/{pattern}"
    assert [source.files[0].name for source in sources][:2] == [
        "layer_0/width_16k/average_l0_105/params.npz",
        "layer_1/width_16k/average_l0_102/params.npz",
    ]


def test_an_unknown_release() -> None:
    assert release_named("nothing") is None
