"""sae-lens's TopK SAE in training, whose decoder sees the k active features alone.

Of a step's six products of matrices, four are with activations that are nearly all zero. On a
processor it is far quicker to gather the rows that count: the numbers are the same, to rounding.

Letters: `N` positions, `D` d_model, `F` features, `K` active features.
"""

from __future__ import annotations

from typing import Any

from sae_lens.saes.topk_sae import TopKTrainingSAE
from torch import Tensor
from torch.nn.functional import embedding_bag


class SparseTopK(TopKTrainingSAE):
    """A `TopKTrainingSAE`; what it learns, and how it is saved, is that one's."""

    def process_sae_in(self, sae_in: Tensor) -> Tensor:
        """The input `[N, D]`: of it, nothing is learned.

        sae-lens takes `0 * b_dec` off, and so pays for a gradient that is zero.
        """
        given: Tensor = super().process_sae_in(sae_in)
        return given if self.cfg.apply_b_dec_to_input else given.detach()

    def decode(self, feature_acts: Tensor) -> Tensor:
        """The reconstruction `[N, D]` of activations `[N, F]`, at most k of each row above 0."""
        if feature_acts.device.type != "cpu" or feature_acts.ndim != 2:
            whole: Tensor = super().decode(feature_acts)
            return whole
        values, features = feature_acts.topk(self.cfg.k, dim=-1, sorted=False)  # [N, K]
        if self.cfg.rescale_acts_by_decoder_norm:
            values = values * (1 / self.W_dec.norm(dim=-1))[features]
        rows = embedding_bag(features, self.W_dec, per_sample_weights=values, mode="sum")
        found: Any = self.hook_sae_recons(rows + self.b_dec)
        return self.reshape_fn_out(self.run_time_activation_norm_fn_out(found), self.d_head)
