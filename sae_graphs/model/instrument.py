"""`InstrumentedModel`: a language model with a stack of SAEs on its residual stream.

Letters: `B` batch, `T` tokens, `D` d_model.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from sae_lens import SAE
from torch import Tensor

from sae_graphs.errors import SaeGraphsError, SAELoadError
from sae_graphs.model.clean_run import CleanRun, with_features
from sae_graphs.model.language_model import CHECKED_TOKENS, LanguageModel
from sae_graphs.model.run import Run
from sae_graphs.model.saes import SAELayer, SAEStack, stack_from
from sae_graphs.model.self_check import same


class InstrumentedModel(LanguageModel):
    """A `TransformerBridge` or `HookedTransformer` with SAEs at its residual hook points.

    `saes` are sae-lens SAEs in any order, as a list or the values of a dict, or a stack. The model
    must already carry the weight processing that the SAEs were trained with (`sae_graphs.load` sees
    to it).
    """

    def __init__(
        self,
        model: Any,
        saes: SAEStack | Sequence[SAE[Any]] | Mapping[Any, SAE[Any]],
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(model, name=name)
        self.stack = saes if isinstance(saes, SAEStack) else stack_from(saes)
        self._saes_checked = False
        d_model, n_blocks = int(model.cfg.d_model), len(model.blocks)
        for layer in self.stack.layers:
            if layer.d_in != d_model:
                raise SAELoadError(
                    f"the SAE on {layer.point.hook_name} reads {layer.d_in} dimensions, "
                    f"{self.name} has {d_model}; use SAEs that were trained on this model"
                )
            if layer.point.block >= n_blocks:
                raise SAELoadError(
                    f"the SAE on {layer.point.hook_name} lies outside {self.name}, which has "
                    f"{n_blocks} blocks; use SAEs that were trained on this model"
                )

    def __repr__(self) -> str:
        labels = [layer.label for layer in self.stack.layers]
        return f"<InstrumentedModel {self.name}, {self.stack.name}: layers {', '.join(labels)}>"

    def between(self, first: str, last: str) -> InstrumentedModel:
        """The model with the SAE layers from label `first` to label `last`, both included."""
        part = copy.copy(self)
        part.stack = self.stack.between(first, last)
        return part

    @property
    def prepend_bos(self) -> bool:
        """Whether BOS is put before a prompt, unless told otherwise: as the SAEs were trained."""
        return self.stack.prepend_bos

    @torch.no_grad()
    def clean_run(
        self, prompt: str | Sequence[int], *, prepend_bos: bool | None = None
    ) -> CleanRun:
        """Run the prompt, or token ids as they are, and keep what the measurements need."""
        ids, text = self.given(prompt, prepend_bos=prepend_bos)
        return self.run_tokens(ids, text)

    @torch.no_grad()
    def run_tokens(self, token_ids: Sequence[int], prompt: str = "") -> CleanRun:
        """`clean_run` of token ids, BOS included where it is wanted."""
        return self.features_of(self._run(tuple(token_ids), prompt))

    @torch.no_grad()
    def features_of(self, run: Run) -> CleanRun:
        """A run of this model with the features of every SAE layer on it.

        Raises `SAELoadError` where an SAE is of a kind that cannot be measured.
        """
        layers = self.stack.layers
        streams = [self.replay.stream_at(run, layer.point) for layer in layers]
        if not self._saes_checked:
            check_saes(layers, [stream[:CHECKED_TOKENS] for stream in streams])
            self._saes_checked = len(run) > 1
        return with_features(run, layers, streams)

    @torch.no_grad()
    def streams_of(self, tokens: Tensor) -> list[Tensor]:
        """The stream at every SAE layer for a batch of token ids `[B, T]`: `[B, T, D]` each."""
        return self.streams_at(tokens, [layer.point for layer in self.stack.layers])

    @property
    def _widest(self) -> int:
        return max(super()._widest, *(layer.n_features for layer in self.stack.layers))


def check_saes(layers: Sequence[SAELayer], streams: Sequence[Tensor]) -> None:
    """Each SAE must treat tokens one by one, and decode from the rows of `W_dec` alone.

    Asked on the stream `[T, D]` at each; raises `SAELoadError` naming the SAE that does not.
    """
    for layer, stream in zip(layers, streams, strict=True):
        acts = layer.encode(stream)
        alone = torch.cat([layer.encode(row[None]) for row in stream])
        active = (acts != 0).any(0).nonzero()[:, 0]
        part = layer.decoder_of(active)(acts[:, active], stream)
        whole = layer.decode(acts, stream)
        if not (same(alone, acts) and same(part, whole)):
            raise SAELoadError(
                f"the SAE on {layer.point.hook_name} mixes tokens or does not decode feature "
                "by feature; save it for inference with sae-lens, or use another kind"
            )


def weights_of(model: InstrumentedModel) -> Iterator[tuple[str, Tensor]]:
    """Every weight of a model and its SAEs, by name, for `run_key`."""
    yield from model.model.named_parameters()
    for layer in model.stack.layers:
        for name, weights in layer.sae.state_dict().items():
            yield f"{layer.label}.{name}", weights


def with_saes(model: Any) -> InstrumentedModel:
    """The model as it is; raises `SaeGraphsError` where it has no SAEs, or is none."""
    if isinstance(model, InstrumentedModel):
        return model
    what = f"a {type(model).__name__}" if isinstance(model, torch.nn.Module) else f"{model!r:.60}"
    raise SaeGraphsError(
        f"{what} is no model with SAEs; give one that sae_graphs.load made, or "
        "InstrumentedModel(model, saes)"
    )
