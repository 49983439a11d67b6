"""A language model and SAEs of GPT-2 small's shapes, with random weights made from a seed.

Times and memory depend on shapes and on which features are active, not on what they mean. The
biases of the SAEs are set for each prompt, so that a wanted number of features is active.

Letters: `T` tokens, `D` d_model, `F` features of an SAE, `S` source features.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import torch
from sae_lens import SAE
from sae_lens.saes.sae import SAEMetadata
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

BOS = "<|endoftext|>"
USUAL_ACTIVE = 40  # features a position: how large activations are is set for this number
CALIBRATION_TOKENS = 256
MARGIN = 0.01  # standard deviations between a feature's height and where it is cut off
TOPICS = 50  # word `w` is on topic `w % TOPICS`
TOPIC_SHARE = 0.8  # of a word's embedding, by variance
STAYS = 0.9  # chance of a word to be on the topic of the one before


class Sizes(NamedTuple):
    """GPT-2 small with `gpt2-small-res-jb`: an SAE before every block and after the last."""

    n_layers: int = 12
    d_model: int = 768
    n_heads: int = 12
    n_features: int = 24_576
    vocabulary: int = 50_257
    context: int = 1024


GPT2_SMALL = Sizes()
TINY = Sizes(n_layers=3, d_model=32, n_heads=4, n_features=256, vocabulary=101, context=64)


class Spread(NamedTuple):
    """Mean and standard deviation of each feature's pre-activation, without its bias: `[F]`."""

    mean: Tensor
    deviation: Tensor


class Shapes(NamedTuple):
    """The model and its SAEs, ordered by depth, with what their biases are set from."""

    sizes: Sizes
    bridge: Any
    saes: list[SAE[Any]]
    spreads: list[Spread]


class Prompt(NamedTuple):
    """Some text and its token ids, BOS first."""

    text: str
    ids: tuple[int, ...]


class LayerCounts(NamedTuple):
    """What is active at one layer of a prompt, the first position left out."""

    l0: float  # mean number of features active at a position
    sources: Tensor  # [S] features active at any position
    n_active: Tensor  # [S] at how many positions each is active
    at_read: Tensor  # [S] whether it is active at the last position


class Workload(NamedTuple):
    """A prompt with SAEs whose biases let `active` features be active where it is read."""

    shapes: Shapes
    prompt: Prompt
    active: int
    layers: list[LayerCounts]
    biases: list[Tensor]  # [F] of each SAE

    def rows(self, mode: str) -> list[Tensor]:
        """Rows that one ablation runs, `[S]` for each layer but the last: changed plus read."""
        return [
            layer.n_active + (~layer.at_read)
            if mode == "all"
            else torch.ones(int(layer.at_read.sum()), dtype=torch.long)
            for layer in self.layers[:-1]
        ]


def make_shapes(sizes: Sizes = GPT2_SMALL, *, seed: int = 0) -> Shapes:
    """The model and one standard SAE before every block and after the last."""
    with torch.no_grad():
        bridge = _bridge(sizes, seed)
        hooks = [f"blocks.{block}.hook_resid_pre" for block in range(sizes.n_layers)]
        hooks.append(f"blocks.{sizes.n_layers - 1}.hook_resid_post")
        length = min(CALIBRATION_TOKENS, sizes.context)
        streams = streams_of(bridge, hooks, prompt_of(length, sizes, seed=seed + 1))
        made = [
            _sae(sizes, hook, stream[1:], seed=seed + number)
            for number, (hook, stream) in enumerate(zip(hooks, streams, strict=True))
        ]
        return Shapes(sizes, bridge, [sae for sae, _ in made], [spread for _, spread in made])


def prompt_of(n_tokens: int, sizes: Sizes = GPT2_SMALL, *, seed: int = 0) -> Prompt:
    """BOS and words drawn as in natural text: mostly on the topic of the word before, of which
    the r-th commonest comes about as often as 1 / r.
    """
    chance = random.Random(seed)
    ranks = range((sizes.vocabulary - 1) // TOPICS)
    rarity = list(accumulate(1 / (rank + 2.7) for rank in ranks))
    topic, ids = chance.randrange(TOPICS), list[int]()
    for rank in chance.choices(ranks, cum_weights=rarity, k=n_tokens - 1):
        if chance.random() > STAYS:
            topic = chance.randrange(TOPICS)
        ids.append(rank * TOPICS + topic)
    return Prompt(" ".join([BOS, *map(_word, ids)]), (sizes.vocabulary - 1, *ids))


@torch.no_grad()
def prepare(shapes: Shapes, n_tokens: int, active: int, *, seed: int = 0) -> Workload:
    """Set the SAEs' biases so that `active` features of each are active.

    Exactly so many at the last position, and on average over all but the first. The SAEs are
    changed in place: of several workloads of some `shapes`, `take_turn` says whose turn it is.
    """
    prompt = prompt_of(n_tokens, shapes.sizes, seed=seed)
    hooks = [str(sae.cfg.metadata.hook_name) for sae in shapes.saes]
    layers = []
    for sae, spread, stream in zip(
        shapes.saes, shapes.spreads, streams_of(shapes.bridge, hooks, prompt), strict=True
    ):
        sae.b_enc.copy_(_biases(sae, spread, stream, active))
        layers.append(_counts(sae, stream))
    biases = [sae.b_enc.detach().clone() for sae in shapes.saes]
    return Workload(shapes, prompt, active, layers, biases)


@torch.no_grad()
def take_turn(workload: Workload) -> None:
    """Give the SAEs the biases of this workload again, after another one was prepared."""
    for sae, biases in zip(workload.shapes.saes, workload.biases, strict=True):
        sae.b_enc.copy_(biases)


@torch.no_grad()
def streams_of(bridge: Any, hooks: Sequence[str], prompt: Prompt) -> list[Tensor]:
    """The residual stream `[T, D]` at each hook."""
    tokens = torch.tensor([prompt.ids])
    _, cache = bridge.run_with_cache(tokens, names_filter=lambda name: name in set(hooks))
    return [cache[hook][0] for hook in hooks]


# -- inside ----------------------------------------------------------------------------------------


def _word(token_id: int) -> str:
    return f"w{token_id}"


def _tokenizer(sizes: Sizes, folder: str) -> PreTrainedTokenizerFast:
    """One token per word. The bridge wants a tokenizer that was loaded from a folder."""
    vocabulary = {_word(token_id): token_id for token_id in range(sizes.vocabulary - 1)}
    vocabulary[BOS] = sizes.vocabulary - 1
    words = Tokenizer(models.WordLevel(vocabulary, unk_token=BOS))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token=BOS, eos_token=BOS, unk_token=BOS
    )
    made.save_pretrained(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


def _bridge(sizes: Sizes, seed: int) -> Any:
    """Random weights, of such sizes that every block changes the stream by a part of it."""
    end = sizes.vocabulary - 1
    config = GPT2Config(
        vocab_size=sizes.vocabulary,
        n_positions=sizes.context,
        n_embd=sizes.d_model,
        n_layer=sizes.n_layers,
        n_head=sizes.n_heads,
        bos_token_id=end,
        eos_token_id=end,
    )
    model = GPT2LMHeadModel(config).eval()
    generator = torch.Generator().manual_seed(seed)
    width = sizes.d_model**-0.5
    stds = {
        "wte": 0.15,
        "wpe": 0.03,
        "c_attn": 1.4 * width,
        "c_fc": width,
        "attn.c_proj": 0.08 * width,
        "mlp.c_proj": 0.06 * width,
    }
    for name, weights in model.named_parameters():
        if weights.ndim == 2:
            std = next(size for part, size in stds.items() if part in name)
            weights.normal_(0, std, generator=generator)
    words = model.transformer.wte.weight
    topics = words[torch.randperm(len(words), generator=generator)[:TOPICS]]  # [TOPICS, D]
    words.mul_((1 - TOPIC_SHARE) ** 0.5)
    words.add_(topics[torch.arange(len(words)) % TOPICS], alpha=TOPIC_SHARE**0.5)
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        bridge = TransformerBridge.boot_transformers(
            folder, hf_model=model, tokenizer=_tokenizer(sizes, folder), device="cpu"
        )
    return bridge.eval().requires_grad_(False)


def _empty_sae(sizes: Sizes) -> SAE[Any]:
    """An SAE with room for its weights; sae-lens would first fill them, which takes a second."""
    config = StandardSAEConfig(
        d_in=sizes.d_model, d_sae=sizes.n_features, device="meta", apply_b_dec_to_input=True
    )
    sae = StandardSAE(config).to_empty(device="cpu")
    sae.cfg.device = "cpu"
    sae.b_enc.zero_()
    return sae.requires_grad_(False).eval()


def _sae(sizes: Sizes, hook: str, stream: Tensor, *, seed: int) -> tuple[SAE[Any], Spread]:
    """Random directions `[F, D]` of norm 1 to decode; the encoder reads along the same ones.

    Activations are as large as rebuilds the stream `[N, D]` best.
    """
    generator = torch.Generator().manual_seed(seed)
    sae = _empty_sae(sizes)
    sae.W_dec.normal_(generator=generator)
    sae.W_dec.div_(sae.W_dec.norm(dim=1, keepdim=True))
    sae.W_enc.copy_(sae.W_dec.T)
    sae.b_dec.copy_(stream.mean(0))
    centred = stream - sae.b_dec
    heights = centred @ sae.W_enc  # [N, F]
    mean, deviation = heights.mean(0), heights.std(0)
    standard = (heights - mean) / deviation
    usual = min(USUAL_ACTIVE, sizes.n_features // 8)
    cut = _largest(standard, usual * len(stream))
    rebuilt = ((standard - cut).relu() * deviation) @ sae.W_dec  # [N, D]
    size = float((rebuilt * centred).sum() / rebuilt.square().sum())
    sae.W_enc.mul_(size)
    sae.cfg.metadata = SAEMetadata(model_name="random", hook_name=hook, prepend_bos=True)
    return sae, Spread(size * mean, size * deviation)


def _biases(sae: SAE[Any], spread: Spread, stream: Tensor, active: int) -> Tensor:
    """Biases `[F]` that cut all features' standardised pre-activations off at one height.

    But at the last position: there the feature moves that stands in the way of the exact number.
    """
    start = 1 if len(stream) > 1 else 0
    mean, deviation = spread
    heights = ((stream[start:] - sae.b_dec) @ sae.W_enc - mean) / deviation  # [N, F]
    cuts = _largest(heights, active * len(heights)).expand(len(mean))
    at_read = heights[-1]
    wanted = torch.zeros(len(mean), dtype=torch.bool)
    wanted[at_read.topk(active).indices] = True
    cuts = torch.where(wanted, torch.minimum(cuts, at_read - MARGIN), cuts)
    cuts = torch.where(wanted, cuts, torch.maximum(cuts, at_read + MARGIN))
    return -(mean + cuts * deviation)


def _largest(values: Tensor, k: int) -> Tensor:
    """The k-th largest value."""
    place = values.numel() - k
    return torch.tensor(np.partition(values.flatten().numpy(), place)[place])


def _counts(sae: SAE[Any], stream: Tensor) -> LayerCounts:
    start = 1 if len(stream) > 1 else 0
    n_active = torch.zeros(sae.cfg.d_sae, dtype=torch.long)
    for rows in stream[start:].split(128):
        n_active += (sae.encode(rows) != 0).sum(0)
    at_read = sae.encode(stream[-1:])[0] != 0
    sources = n_active.nonzero()[:, 0]
    l0 = float(n_active.sum()) / (len(stream) - start)
    return LayerCounts(l0, sources, n_active[sources], at_read[sources])
