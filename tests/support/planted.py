"""Linear models in which it is known which path matters, to see whether validation finds out.

The stream has a slice of coordinates for each SAE layer, and each SAE reads its slice alone:
feature `j` is `relu` of coordinate `j` of the slice. All slices are filled by the embedding; a
block adds links from the features of one layer to those of the next, half of each at a token and
half at the token after it. What a feature does to the logits is a column of the unembedding.

Everything else that is active is background: as large, unlinked, with weak or random effects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from sae_lens.saes.sae import SAEMetadata
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig
from torch import Tensor, nn

from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.model.instrument import InstrumentedModel
from tests.support.linear_model import Block

NUMBERS = ("one two three", "four five six", "seven eight nine", "ten eleven twelve")
WORDS = ["^", *" ".join(NUMBERS).split(), "yes", "no"]
PROMPT = "one two three four five six"
OTHER_PROMPTS = ("seven two nine four eleven six ten", "three three one twelve five eight")
TARGET, CONTRAST = "yes", "no"
N_LAYERS, WIDTH = 4, 40  # SAE layers, features of each
ACTIVATION = 2.0  # of planted, decoy and side features
LOGIT = 4.0  # that the target gets from the planted path, side path included

Chain = Sequence[int]  # one feature a layer
PLANTED: Chain = (3, 11, 19, 27)
DECOY: Chain = (5, 13, 21, 29)
SIDE: Chain = (3, 12, 20, 28)  # from the planted path's first feature


class Words:
    """A tokenizer of the words above, of which `^` is BOS."""

    bos_token_id = 0

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": [WORDS.index(word) for word in text.split()]}

    def __len__(self) -> int:
        return len(WORDS)

    def convert_ids_to_tokens(self, token_id: int) -> str:
        return WORDS[token_id]

    def convert_tokens_to_ids(self, token: str) -> int | None:
        return WORDS.index(token) if token in WORDS else None

    def decode(self, ids: Sequence[int], **options: bool) -> str:
        return " ".join(WORDS[token_id] for token_id in ids)


class PlantedModel(nn.Module):
    """As much of a TransformerLens model as the engine uses."""

    def __init__(self, embedding: Tensor, links: Sequence[Tensor], unembedding: Tensor) -> None:
        super().__init__()
        self.cfg = SimpleNamespace(
            d_model=embedding.shape[1], n_ctx=64, n_heads=1, device="cpu", model_name="planted"
        )
        self.tokenizer = Words()
        halves = [(link / 2).tolist() for link in links]
        self.blocks = nn.ModuleList([Block(here=half, before=half) for half in halves])
        self.hook_dict = {
            f"blocks.{number}.{name}": hook
            for number, block in enumerate(self.blocks)
            for name, hook in block.named_children()
        }
        self.embedding = nn.Parameter(embedding, requires_grad=False)
        self.ln_final = nn.Identity()
        words, width = unembedding.shape
        self.unembed = nn.Linear(width, words, bias=False, dtype=torch.float64)
        self.unembed.weight = nn.Parameter(unembedding, requires_grad=False)

    def forward(self, tokens: Tensor) -> Tensor:
        stream = self.embedding[tokens]
        for block in self.blocks:
            stream = block(stream)
        logits: Tensor = self.unembed(self.ln_final(stream))
        return logits


class Planted(NamedTuple):
    """The model, and its paths: one feature a layer."""

    model: InstrumentedModel
    paths: Mapping[str, tuple[FeatureId, ...]]  # "planted", "decoy", and "side" where there is one
    background: tuple[tuple[FeatureId, ...], ...]  # all other features, layer by layer


def planted(*, side: bool = False, seed: int = 0) -> Planted:
    """A planted path that alone makes `TARGET` the next token, and a decoy that does nothing.

    With a `side` path, half of the planted path's effect goes that way instead: then the planted
    path mediates exactly half of what its first feature does, else all of it.
    """
    chains = {"planted": PLANTED, "decoy": DECOY} | ({"side": SIDE} if side else {})
    generator = torch.Generator().manual_seed(seed)
    embedding = _background(generator)
    unembedding = 0.02 * _normal(generator, len(WORDS), N_LAYERS * WIDTH)
    for chain in chains.values():
        for layer, feature in enumerate(chain):
            embedding[:, _coordinate(layer, feature)] = ACTIVATION if layer == 0 else 0.0
            unembedding[:, _coordinate(layer, feature)] = 0.0
    ends = [chain[-1] for name, chain in chains.items() if name != "decoy"]
    for end in ends:
        at = _coordinate(N_LAYERS - 1, end)
        unembedding[WORDS.index(TARGET), at] = LOGIT / ACTIVATION / len(ends)
    return _built(embedding, _links(list(chains.values())), unembedding, chains)


def planted_null(seed: int) -> Planted:
    """Every feature's effect on the logits is drawn alike: no path is better than its controls.

    The `planted` path is any features that are active somewhere, one a layer; there are no links.
    """
    generator = torch.Generator().manual_seed(seed)
    embedding = _background(generator)
    unembedding = 0.1 * _normal(generator, len(WORDS), N_LAYERS * WIDTH)
    active = (embedding[[WORDS.index(word) for word in PROMPT.split()]] > 0).any(0)
    chain = []
    for own in active.view(N_LAYERS, WIDTH):
        order = torch.randperm(int(own.sum()), generator=generator)
        chain.append(int(own.nonzero()[order[0], 0]))
    return _built(embedding, _links([]), unembedding, {"planted": chain})


def _built(
    embedding: Tensor, links: Sequence[Tensor], unembedding: Tensor, chains: Mapping[str, Chain]
) -> Planted:
    hooks = [f"blocks.{block}.hook_resid_pre" for block in range(N_LAYERS - 1)]
    hooks.append(f"blocks.{N_LAYERS - 2}.hook_resid_post")
    saes = [slice_sae(layer, hook) for layer, hook in enumerate(hooks)]
    model = InstrumentedModel(PlantedModel(embedding, links, unembedding), saes)
    taken = [{chain[layer] for chain in chains.values()} for layer in range(N_LAYERS)]
    return Planted(
        model,
        {name: _features(chain) for name, chain in chains.items()},
        tuple(
            tuple(FeatureId(str(layer), j) for j in range(WIDTH) if j not in taken[layer])
            for layer in range(N_LAYERS)
        ),
    )


def slice_sae(
    layer: int, hook_name: str, *, width: int = WIDTH, n_layers: int = N_LAYERS
) -> StandardSAE:
    """Feature `j` is `relu` of the layer's coordinate `j`; it decodes to that coordinate."""
    sae = StandardSAE(StandardSAEConfig(d_in=n_layers * width, d_sae=width, dtype="float64"))
    own = slice(layer * width, (layer + 1) * width)
    with torch.no_grad():
        for weights in (sae.W_enc, sae.W_dec, sae.b_enc, sae.b_dec):
            weights.zero_()
        sae.W_enc[own] = torch.eye(width, dtype=torch.float64)
        sae.W_dec[:, own] = torch.eye(width, dtype=torch.float64)
    metadata: dict[str, Any] = {"hook_name": hook_name, "prepend_bos": True}
    sae.cfg.metadata = SAEMetadata(**metadata)
    return sae


def _background(generator: torch.Generator) -> Tensor:
    """Embeddings `[words, D]`: nine features of ten are active at a word, each from 1 to 3."""
    shape = len(WORDS), N_LAYERS * WIDTH
    sizes = 1 + 2 * torch.rand(shape, generator=generator, dtype=torch.float64)
    return sizes * (torch.rand(shape, generator=generator) < 0.9)


def _links(chains: Sequence[Chain]) -> list[Tensor]:
    """What each block adds, `[D, D]`: a feature of a chain the next one, as large."""
    links = [torch.zeros(N_LAYERS * WIDTH, N_LAYERS * WIDTH) for _ in range(N_LAYERS - 1)]
    for chain in chains:
        for layer in range(N_LAYERS - 1):
            source, target = (_coordinate(at, chain[at]) for at in (layer, layer + 1))
            links[layer][target, source] = 1.0
    return links


def _coordinate(layer: int, feature: int) -> int:
    return layer * WIDTH + feature


def _features(chain: Chain) -> tuple[FeatureId, ...]:
    return tuple(FeatureId(str(layer), feature) for layer, feature in enumerate(chain))


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)
