"""How much memory a model takes once loaded and processed, at most. Sizes are in bytes.

The bridge splits a joint projection to queries, keys and values, and keeps both. Weight
processing unties an unembedding that is tied to the embedding, the largest tensor.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from sae_graphs.headers import StoredTensor, sizes_of
from sae_graphs.memory import MIB

JOINT_PROJECTION = re.compile(r"c_attn\.|query_key_value|qkv", re.IGNORECASE)
BUFFERS = 64 * MIB  # attention masks and rotary tensors, which no file holds


def size_of_files(
    tensors: Sequence[StoredTensor], dtype: str, *, tied: bool | None = True
) -> int | None:
    """What a model takes whose files hold these tensors; None where there are none.

    `tied` says whether the unembedding is the embedding; where that is None, it may be.
    """
    if not tensors:
        return None
    sizes = sizes_of(tensors, dtype)
    weights = sum(size.loaded for size in sizes.values())
    split = sum(size.loaded for name, size in sizes.items() if JOINT_PROJECTION.search(name))
    largest = max(size.loaded for size in sizes.values())
    return _whole(weights + split, 0 if tied is False else largest)


def size_of_loaded(bridge: Any) -> int:
    """What a loaded model takes once its weights are processed."""
    tensors = [*bridge.parameters(), *bridge.buffers()]
    sizes = {tensor.data_ptr(): tensor.numel() * tensor.element_size() for tensor in tensors}
    return _whole(sum(sizes.values()), max(sizes.values()))


def _whole(weights: int, untied: int) -> int:
    return weights + weights // 50 + untied + BUFFERS  # a fiftieth: biases that processing adds
