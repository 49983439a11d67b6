"""Real releases' stacks, loaded by name through a local hub cache: effects equal the oracle's.

Weights are generated; names, formats, architectures and the code that loads them are the real ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pytest
import torch
from sae_lens import SAE
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

import sae_graphs as sg
from sae_graphs.errors import SAELoadError
from sae_graphs.model.instrument import InstrumentedModel
from tests.support.against_oracle import (
    RELATIVE,
    Case,
    engine_effects,
    largest_deviation,
    oracle_effects,
)
from tests.support.commands import Commands
from tests.support.effect_graphs import EFFECT, effect_graph, effect_settings
from tests.support.hub_cache import HubStack, build, cache_in_use, snapshot_of
from tests.support.hub_weights import K
from tests.support.oracle import Oracle
from tests.support.slow import only

PROMPT = "Copyright (C"
TOP_K = 8


class Expected(NamedTuple):
    """What a stack should be: its SAEs' ids by depth, their labels and Neuronpedia ids.

    `at` are the layers on which effects are measured; `bos` is what comes before the prompt: Qwen's
    tokenizer has none, and is given its end of text for one.
    """

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    neuronpedia: str | None
    at: tuple[str, str]
    bos: str | None


def numbered(pattern: str, n: int, neuronpedia: str | None, at: str, bos: str | None) -> Expected:
    labels = tuple(str(number) for number in range(n))
    first, last = at.split(":")
    return Expected(
        tuple(pattern.format(number) for number in range(n)),
        labels,
        neuronpedia,
        (first, last),
        bos,
    )


PRE, POST = "blocks.{}.hook_resid_pre", "blocks.{}.hook_resid_post"
EXPECTED = {
    "gpt2-small": Expected(
        (*(PRE.format(block) for block in range(12)), "blocks.11.hook_resid_post"),
        tuple(str(layer) for layer in range(13)),
        "gpt2-small/{}-res-jb",
        ("10", "12"),
        "<|endoftext|>",
    ),
    "gpt2-small-v5": numbered(POST, 12, "gpt2-small/{}-res_post_32k-oai", "9:11", None),
    "pythia-70m-deduped": Expected(
        (PRE.format(0), *(POST.format(block) for block in range(6))),
        ("e", "0", "1", "2", "3", "4", "5"),
        "pythia-70m-deduped/{}-res-sm",
        ("e", "1"),
        "<|endoftext|>",
    ),
    "gemma-2-2b": numbered(
        "layer_{}/width_16k/canonical", 26, "gemma-2-2b/{}-gemmascope-res-16k", "24:25", "<bos>"
    ),
    "qwen3-1.7b": numbered("layer{}", 28, None, "26:27", "<|endoftext|>"),
    "llama-3.1-8b": numbered(
        "l{}r_8x", 32, "llama3.1-8b/{}-llamascope-res-32k", "30:31", "<|begin_of_text|>"
    ),
    "gemma-3-270m": numbered("layer_{}_width_16k_l0_big", 18, None, "4:5", "<bos>"),
}


class Loaded(NamedTuple):
    """A stack loaded by name, in float64, and the folder that holds its cache."""

    stack: HubStack
    model: InstrumentedModel
    home: Path


LoadedBy = Callable[[str], Loaded]


@pytest.fixture(scope="session")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedBy:
    """A stack by its name, written and loaded once."""
    home = tmp_path_factory.mktemp("hub")
    made: dict[str, Loaded] = {}

    def get(name: str) -> Loaded:
        if name not in made:
            stack = build(home, name)
            with cache_in_use(home, name):
                model = sg.load(
                    stack.model, saes=stack.release, sae_pattern=stack.pattern, dtype="float64"
                )
            made[name] = Loaded(stack, model, home)
        return made[name]

    return get


@pytest.fixture
def gpt2(loaded: LoadedBy) -> Iterator[Loaded]:
    """GPT-2 small with all of res-jb, and its cache in use."""
    of_gpt2 = loaded("gpt2-small")
    with cache_in_use(of_gpt2.home):
        yield of_gpt2


def direct_saes(loaded: Loaded, ids: tuple[str, ...]) -> list[SAE[Any]]:
    """The SAEs as sae-lens alone loads them."""

    def shapes(repo_id: str, filename: str) -> dict[str, list[int]]:  # sae-lens asks the hub
        tensors = load_file(snapshot_of(loaded.home, repo_id) / filename)
        return {name: list(tensor.shape) for name, tensor in tensors.items()}

    at = "sae_lens.loading.pretrained_sae_loaders.get_safetensors_tensor_shapes"
    with cache_in_use(loaded.home, loaded.stack.name), mock.patch(at, shapes):
        release = loaded.stack.release
        return [SAE.from_pretrained(release, sae_id, dtype="float64") for sae_id in ids]


def token_ids(loaded: Loaded, bos: str | None, prompt: str = PROMPT) -> list[int]:
    """The prompt's tokens after the one that the stack should see first, if any."""
    reads = loaded.model.tokenizer
    first = [] if bos is None else [reads.convert_tokens_to_ids(bos)]
    return first + reads(prompt, add_special_tokens=False)["input_ids"]


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_layers_are_called_as_on_neuronpedia(loaded: LoadedBy, name: str) -> None:
    layers = loaded(name).model.stack.layers
    expected = EXPECTED[name]
    assert tuple(layer.label for layer in layers) == expected.labels
    ids = [layer.neuronpedia_id for layer in layers]
    wanted = [expected.neuronpedia and expected.neuronpedia.format(x) for x in expected.labels]
    if name == "pythia-70m-deduped":  # on Neuronpedia the embedding's goes with the attention's
        wanted[0] = "pythia-70m-deduped/e-res-sm"
    assert ids == wanted
    blocks = [int(re.findall("[0-9]+", sae_id)[0]) for sae_id in expected.ids]
    assert [layer.point.block for layer in layers] == blocks
    sites = ["pre" if sae_id.endswith("_pre") else "post" for sae_id in expected.ids]
    assert [layer.point.site for layer in layers] == sites


@pytest.mark.parametrize("name", only(EXPECTED, "gpt2-small"))
def test_effects_and_edges_equal_the_oracles(
    loaded: LoadedBy, record_property: Callable[[str, object], None], name: str
) -> None:
    stack, expected = loaded(name), EXPECTED[name]
    part = stack.model.between(*expected.at)
    first, last = (expected.labels.index(label) for label in expected.at)
    saes = direct_saes(stack, expected.ids[first : last + 1])
    case = Case(part, Oracle(stack.model.model, saes, token_ids(stack, expected.bos)))
    slow = oracle_effects(case, effect_settings())
    worst = largest_deviation(engine_effects(case, effect_settings(), PROMPT), slow)
    record_property(f"deviation float64 {name}", worst)
    assert worst < RELATIVE

    graph = effect_graph(part, PROMPT, top_k=TOP_K, min_path_edges=1)
    assert len(graph.edges) == TOP_K * len(slow)
    for edge in graph.edges:
        pair = expected.labels.index(edge.source.layer) - first
        effect = slow[pair][edge.source.index, edge.target.index]
        assert edge.effect == pytest.approx(float(effect), rel=RELATIVE)
        assert abs(effect) >= slow[pair].abs().flatten().topk(TOP_K).values[-1] * (1 - RELATIVE)


# -- preprocessing ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_streams_are_the_models_own_and_centred_where_the_saes_say_so(
    loaded: LoadedBy, name: str
) -> None:
    stack, expected = loaded(name), EXPECTED[name]
    ids = token_ids(stack, expected.bos)
    plain: Any = AutoModelForCausalLM.from_pretrained(
        snapshot_of(stack.home, stack.stack.model), dtype=torch.float64, attn_implementation="eager"
    )
    answer = plain(torch.tensor([ids]), output_hidden_states=True)
    said = answer.hidden_states
    centred = name == "gpt2-small"
    close = 1e-5 if centred else 1e-9  # weights are centred in float32
    clean = stack.model.clean_run(PROMPT)
    assert list(clean.token_ids) == ids
    for layer, stream in zip(stack.model.stack.layers, clean.streams, strict=True):
        depth = layer.point.block + (layer.point.site == "post")
        if depth == len(said) - 1:
            continue  # transformers gives this one after the last norm
        wanted = said[depth][0]
        if centred:
            wanted = wanted - wanted.mean(-1, keepdim=True)
        torch.testing.assert_close(stream, wanted, rtol=0, atol=close)
    torch.testing.assert_close(clean.logits, answer.logits[0], rtol=0, atol=close)


def weights_of(loaded: Loaded, name: str) -> dict[str, Tensor]:
    """A file of the release's repository, in float64, read without sae-lens."""
    file = snapshot_of(loaded.home, loaded.stack.entry.repo_id) / name
    if file.suffix == ".npz":
        tensors = {key: torch.from_numpy(values) for key, values in np.load(file).items()}
    elif file.suffix == ".pt":
        tensors = torch.load(file, weights_only=True)
    else:
        tensors = load_file(file)
    return {key: tensor.double() for key, tensor in tensors.items()}


def top_k(before: Tensor) -> Tensor:
    """The `K` largest at each token, where above 0."""
    smallest = before.topk(K, dim=-1).values[:, -1:]
    return before.relu() * (before >= smallest)


def openai(x: Tensor, loaded: Loaded) -> Tensor:
    w = weights_of(loaded, "v5_32k_layer_3.pt/sae_weights.safetensors")
    centred = x - x.mean(-1, keepdim=True)
    normed = centred / (centred.std(-1, keepdim=True) + 1e-5)
    return top_k((normed - w["b_dec"]) @ w["W_enc"] + w["b_enc"])


def res_jb(x: Tensor, loaded: Loaded) -> Tensor:
    w = weights_of(loaded, "blocks.3.hook_resid_pre/sae_weights.safetensors")
    return ((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu()


def gemma_scope(x: Tensor, loaded: Loaded) -> Tensor:
    w = weights_of(loaded, "layer_3/width_16k/average_l0_59/params.npz")
    before = x @ w["w_enc"] + w["b_enc"]
    return before * (before > w["threshold"])


def qwen_scope(x: Tensor, loaded: Loaded) -> Tensor:
    w = weights_of(loaded, "layer3.sae.pt")
    return top_k(x @ w["W_enc"].T + w["b_enc"])


def llama_scope(x: Tensor, loaded: Loaded) -> Tensor:
    w = weights_of(loaded, "Llama3_1-8B-Base-L3R-8x/checkpoints/final.safetensors")
    factor = loaded.stack.entry.norm_scaling_factor["l3r_8x"]
    before = factor * x @ w["encoder.weight"].T + w["encoder.bias"]
    return before.relu()


BY_HAND = {
    "gpt2-small": res_jb,
    "gpt2-small-v5": openai,
    "gemma-2-2b": gemma_scope,
    "qwen3-1.7b": qwen_scope,
    "llama-3.1-8b": llama_scope,
}


@pytest.mark.parametrize("name", only(BY_HAND, "gpt2-small"))
def test_features_are_those_of_the_files(loaded: LoadedBy, name: str) -> None:
    stack = loaded(name)
    layer = stack.model.stack.layers[3]
    x = stack.model.clean_run(PROMPT).streams[3]
    found, wanted = layer.encode(x), BY_HAND[name](x, stack)
    if name == "llama-3.1-8b":  # what is below the one threshold of all features is left out
        threshold = float(found[found > 0].min())
        assert 0 < float(wanted[wanted > 0].min()) < threshold
        wanted = wanted * (wanted >= threshold)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)  # stored as float32
    assert 0.05 < float((found > 0).double().mean()) < 0.6


# -- the deprecated class --------------------------------------------------------------------------


@pytest.fixture
def hooked(gpt2: Loaded) -> Any:
    """GPT-2 as res-jb was trained on it, by the class that it was trained with."""
    from transformer_lens import HookedTransformer

    return HookedTransformer.from_pretrained_no_processing(
        "gpt2", center_writing_weights=True, dtype=torch.float64, device="cpu"
    ).requires_grad_(False)


@pytest.mark.slow
def test_the_same_as_a_hooked_transformer_without_processing(gpt2: Loaded, hooked: Any) -> None:
    ids = token_ids(gpt2, "<|endoftext|>")
    assert hooked.to_tokens(PROMPT).tolist() == [ids]
    clean = gpt2.model.clean_run(PROMPT)
    logits, seen = hooked.run_with_cache(torch.tensor([ids]))
    torch.testing.assert_close(clean.logits, logits[0], rtol=1e-8, atol=1e-8)
    saes = direct_saes(gpt2, EXPECTED["gpt2-small"].ids)
    for layer, stream, sae in zip(gpt2.model.stack.layers, clean.streams, saes, strict=True):
        theirs = seen[layer.point.hook_name][0]
        torch.testing.assert_close(stream, theirs, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(layer.encode(stream), sae.encode(theirs), rtol=1e-8, atol=1e-8)


@pytest.mark.slow
def test_a_hooked_transformer_gives_the_same_graph(gpt2: Loaded, hooked: Any) -> None:
    saes = direct_saes(gpt2, EXPECTED["gpt2-small"].ids)
    theirs = effect_graph(InstrumentedModel(hooked, saes), PROMPT)
    ours = effect_graph(gpt2.model, PROMPT)
    assert [(e.source, e.target) for e in ours.edges] == [
        (e.source, e.target) for e in theirs.edges
    ]
    effects = [edge.effect for edge in ours.edges]
    assert effects == pytest.approx([edge.effect for edge in theirs.edges], rel=RELATIVE)
    assert len(effects) > 50


# -- as a user loads them --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("gpt2")
def test_the_command_needs_no_more_than_the_models_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    commands = Commands(monkeypatch, capsys, tmp_path)
    answer = commands("graph", PROMPT, *EFFECT, "--model", "gpt2-small", "--formats", "dot")
    assert answer.code == 0, answer.err
    graph = sg.CausalGraph.load(next(tmp_path.rglob("graph.json")))
    assert graph.edges
    node = graph.to_networkx().nodes[str(graph.edges[0].source)]
    layer, index = node["layer"], node["index"]
    page = f"https://www.neuronpedia.org/gpt2-small/{layer}-res-jb/{index}"
    assert node["neuronpedia"] == page


@pytest.mark.slow
def test_a_release_with_several_saes_a_layer_needs_a_pattern(loaded: LoadedBy) -> None:
    stack = loaded("gemma-2-2b")
    with cache_in_use(stack.home, "gemma-2-2b"):
        with pytest.raises(SAELoadError, match=r"layer_\{layer\}/width_65k/canonical"):
            sg.load("gemma-2-2b", saes="gemma-scope-2b-pt-res-canonical")
        wide = sg.load("gemma-2-2b", saes=stack.stack.release, sae_pattern="*/width_65k/*")
    assert wide.stack.layers[3].neuronpedia_id == "gemma-2-2b/3-gemmascope-res-65k"
    assert not torch.equal(
        wide.stack.layers[3].sae.W_enc, stack.model.stack.layers[3].sae.W_enc.float()
    )
