"""A language model's files: which there are on the hub, which are here, and their sizes.

Small files come first in every list, so that a model whose weights are here is here as a whole.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from safetensors import SafetensorError

from sae_graphs.errors import HubError
from sae_graphs.model.shelf import HubFile
from sae_graphs.pretrained.hub import cached
from sae_graphs.pretrained.listing import listed_once, remote_tensors
from sae_graphs.pretrained.releases import default_saes, release_named
from sae_graphs.pretrained.sizes import StoredTensor, tensors_in

INDEX = "model.safetensors.index.json"
WEIGHTS = "model.safetensors"
_TOKENIZERS = ("tokenizer.json", "vocab.json", "tokenizer.model", "spiece.model", "vocab.txt")
_SMALL = re.compile(
    r"(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|"
    r"preprocessor_config|processor_config|chat_template)\.(json|jinja)|vocab\.txt|merges\.txt|"
    r"(tokenizer|spiece)\.model|model\.safetensors\.index\.json"
)
_WIDTHS = ("hidden_size", "n_embd", "d_model")
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")


def official_name(model: str) -> str:
    """A model's name on the hub, for its name or one of TransformerLens's aliases.

    Without an owner, the one of the model that has a default stack: `qwen3-8b-base`.
    """
    from transformer_lens.supported_models import MODEL_ALIASES

    for name, aliases in MODEL_ALIASES.items():
        if model in aliases:
            return str(name)
    default = default_saes(model) if "/" not in model and model != "gpt2" else None
    release = None if default is None else release_named(default.release)
    if release is not None and "/" in (release.model or ""):
        return str(release.model)
    return model


def is_whole(repo_id: str) -> bool:
    """Whether a model is here with all that it can have; one without may be whole all the same."""
    return bool(weights_here(repo_id)) and cached(repo_id, "tokenizer_config.json") is not None


def weights_here(repo_id: str) -> tuple[Path, ...]:
    """The files of a model's weights in the cache; none where it is not here as a whole."""
    if cached(repo_id, "config.json") is None:
        return ()
    if not any(cached(repo_id, name) for name in _TOKENIZERS):
        return ()
    whole = cached(repo_id, WEIGHTS)
    if whole is not None:
        return (whole,)
    index = cached(repo_id, INDEX)
    if index is None:
        return ()
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return ()
    shards = [cached(repo_id, name) for name in names]
    return tuple(at for at in shards if at is not None) if None not in shards else ()


def files_of_model(repo_id: str) -> tuple[HubFile, ...]:
    """The files that a model needs, as the hub lists them: safetensors only.

    Raises `HubError` where there is no such model, it is not open to this user, it has no such
    weights, or the hub cannot be reached.
    """
    what = f"model {repo_id!r}"
    sizes = listed_once(repo_id, what)
    small = sorted(name for name in sizes if _SMALL.fullmatch(name))
    weights = [WEIGHTS] if WEIGHTS in sizes else sorted(n for n in sizes if _SHARD.fullmatch(n))
    if "config.json" not in sizes or not weights:
        raise HubError(
            f"{what}: {repo_id} on the hub has no "
            f"{'safetensors weights' if 'config.json' in sizes else 'config.json'}; expected a "
            "language model in the format of transformers"
        )
    if weights == [WEIGHTS]:
        small = [name for name in small if name != INDEX]
    return tuple(HubFile(repo_id, name, sizes[name]) for name in (*small, *weights))


def stored_tensors(source: str) -> list[StoredTensor]:
    """The tensors of a model in a folder or in the cache; none where it is not here."""
    folder = Path(source)
    files: list[Path] = []
    if folder.is_dir():
        whole = folder / WEIGHTS
        files = [whole] if whole.is_file() else sorted(folder.glob("model-*-of-*.safetensors"))
    elif source:
        files = list(weights_here(source))
    try:
        return [tensor for file in files for tensor in tensors_in(file)]
    except (OSError, SafetensorError):
        return []  # whoever loads the model says what is wrong with it


def tensors_to_fetch(repo_id: str, files: tuple[HubFile, ...]) -> list[StoredTensor]:
    """The tensors of a model on the hub; none where its headers cannot be had."""
    names = [file.name for file in files if file.name.endswith(".safetensors")]
    return list(remote_tensors(repo_id, names))


def width_of(source: str) -> int | None:
    """The width of a model's residual stream; None where its configuration does not tell."""
    file = cached(source, "config.json")
    try:
        held = json.loads(file.read_text(encoding="utf-8")) if file is not None else {}
        widths = [part[key] for part in (held, held.get("text_config", {})) for key in _WIDTHS
                  if isinstance(part.get(key), int)]  # fmt: skip
    except (OSError, ValueError, AttributeError):
        return None
    return widths[0] if widths else None


def is_tied(source: str) -> bool | None:
    """Whether a model's unembedding is its embedding; None where its configuration is not here."""
    folder = Path(source)
    file = folder / "config.json" if folder.is_dir() else cached(source, "config.json")
    if file is None:
        return None
    try:
        return bool(json.loads(file.read_text(encoding="utf-8")).get("tie_word_embeddings", True))
    except (OSError, ValueError, AttributeError):
        return None
