"""`Run`: what one forward pass over one prompt leaves, so that any stretch of it can be run again.

Letters: `T` tokens, `D` d_model, `V` vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sae_graphs.model.recording import BlockCall
from sae_graphs.model.rows import KeysAndValues
from sae_graphs.model.stream import StreamPoint


@dataclass(frozen=True, eq=False)
class Run:
    """One forward pass over one prompt, undisturbed or from changed embeddings.

    `inputs` holds the stream before each block and after the last, `[T, D]` each; `calls` what each
    block was called with besides; `kept` the keys and values of each block's attention, None where
    rows cannot be run alone; `logits` is `[T, V]`.
    """

    prompt: str
    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    calls: tuple[BlockCall, ...]
    kept: tuple[KeysAndValues | None, ...]
    logits: Tensor

    def __len__(self) -> int:
        return len(self.token_ids)

    def kept_stream(self, point: StreamPoint) -> Tensor | None:
        """The stream `[T, D]` at a point; None in the middle of a block, where it is not kept."""
        if point.site == "mid":
            return None
        return self.inputs[point.block + (point.site == "post")]
