"""Changes of exactly a given norm: what ablation takes, scaled on the stream as it is then.

Letters: `K` controls, `L` SAE layers, `T` tokens, `D` d_model, `U` features of a selection, `R`
rows.
"""

from __future__ import annotations

from torch import Tensor

from sae_graphs.model.clean_run import CleanRun
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.interventions import Intervention
from sae_graphs.model.joint import Edit, Selected, activations_of
from sae_graphs.model.rows import Rows, Where
from sae_graphs.validation.evidence import Match

QUANTILES = (0.05, 0.5, 0.95)  # of controls, which say how well they match
LEAST = 1e-300  # a norm that is divided by is at least this


def scaled_to(
    model: InstrumentedModel,
    clean: CleanRun,
    depth: int,
    selected: Selected,
    intervention: Intervention,
    norms: Tensor,
) -> Edit:
    """Takes from the stream what ablation takes, scaled to `norms`: of each token `[T]`, or of the
    whole layer, a single number: then tokens keep their proportions.

    `x' = x - removed · norm / |removed|`. Where all of it has fallen silent there is nothing to
    scale: then it is what ablation takes from the clean stream.
    """

    def change(rows: Rows) -> Tensor:
        touched = selected.chosen.any(-1)[rows.where.copies, rows.where.positions]
        where = Where(*(part[touched] for part in (rows.where.copies, rows.where.positions)))
        took = _removed(model, clean, depth, selected, intervention, rows.streams[touched], where)
        took = took.double()
        sizes = _sizes(took, where, norms)
        silent = sizes == 0
        if bool(silent.any()):
            at = Where(where.copies[silent], where.positions[silent])
            still = clean.streams[depth][at.positions]
            took[silent] = _removed(model, clean, depth, selected, intervention, still, at).double()
            sizes = _sizes(took, where, norms)
        wanted = norms.double() if norms.ndim == 0 else norms.double()[where.positions]
        streams = rows.streams.clone()
        left = streams[touched].double() - took * (wanted / sizes.clamp(min=LEAST))[:, None]
        streams[touched] = left.to(streams.dtype)
        return streams

    return Edit(Where.of(selected.chosen.any(-1)), change)


def match_of(took: Tensor, norms: Tensor) -> Match:
    """How the norms that copies took, `[K, L, T]`, compare with a unit's, `[L, T]`."""
    ratios = took.double().flatten(1).norm(dim=1) / norms.double().norm()
    return Match(*ratios.quantile(ratios.new_tensor(QUANTILES)).tolist())


def _sizes(took: Tensor, where: Where, norms: Tensor) -> Tensor:
    """By row `[R]` the norm of what is taken there, or from all rows of its copy."""
    squares = took.square().sum(-1)
    if norms.ndim:
        return squares.sqrt()
    whole = squares.new_zeros(int(where.copies.max()) + 1 if len(where.copies) else 0)
    return whole.index_add(0, where.copies, squares).sqrt()[where.copies]


def _removed(
    model: InstrumentedModel,
    clean: CleanRun,
    depth: int,
    selected: Selected,
    intervention: Intervention,
    streams: Tensor,
    where: Where,
) -> Tensor:
    """What ablation takes from some rows, `[R, D]`."""
    layer, point = model.stack.layers[depth], clean.points[depth]
    features, chosen = selected
    decode, mask = layer.decoder_of(features), chosen[where.copies, where.positions]
    before = activations_of(layer, features, streams) * mask  # [R, U]
    spread = before.new_zeros(chosen.shape)
    spread = spread.index_put((where.copies, where.positions), before)
    after = intervention.replace(point, features, spread).expand_as(spread)
    after = after[where.copies, where.positions] * mask
    return decode(before, streams) - decode(after, streams)
