"""Prediction beside intervention: `python -m benchmarks.granger`.

Over texts of the bundled corpus, each pair of neighbouring layers' features is tested by Granger's
criterion, and the exact effect of the one on the other is measured by ablating it in the same
texts. How far does what is only observed get? Steps that are done are kept, and an interrupted run
goes on after them.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks.progress import CACHE, HERE, Progress, write_text
from sae_graphs.editing.granger.pairs import Tester, chosen_lag, with_q
from sae_graphs.editing.granger.panel import Panel
from sae_graphs.editing.granger.records import GrangerTest, Pair
from sae_graphs.editing.granger.settings import GrangerSettings
from sae_graphs.files import write_atomically
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.schema import plain, rebuilt

if TYPE_CHECKING:
    from sae_graphs.editing.granger.read import Reader
    from sae_graphs.model.instrument import InstrumentedModel

Numbers = NDArray[np.float64]
Ends = tuple[str, str]
PICTURE = HERE.parent / "docs" / "pictures" / "granger.png"
ACTS = 0.05  # of the target's activation: an effect of so much makes an edge, as in answer graphs
IDLE = 0.01  # an effect of less is next to none
RIVALS = 3  # other sources of a target that are given
RARELY = "rarely on"


@dataclass(frozen=True)
class Compared:
    """One pair: what ablating the source does to the target, and what its past predicts of it.

    `effect` is ablated minus clean, summed over all tokens of all texts, `size` the sum of its
    absolute values, both as shares of the target's activation, summed likewise. `weights` is the
    cosine of the source's decoder direction and the target's encoder's; `correlation` that of the
    two at the same token, text means taken out. `alone` is the pair's test, `later` without the
    same token, `rivals` given the other sources that predict the target best, `drivers` given those
    that act on it most: of each, q is over all pairs' tests of one direction. `bent` is the partial
    R squared of the nonlinear test.
    """

    source: str
    target: str
    effect: float
    size: float
    weights: float
    correlation: float
    alone: Pair
    later: Pair
    bent: float
    rivals: Pair
    drivers: Pair

    @property
    def acts(self) -> bool:
        """Whether ablating the source changes the target."""
        return self.size >= ACTS


def main(
    texts: Annotated[int, typer.Option(help="Texts of the bundled corpus.", min=200)] = 300,
    features: Annotated[int, typer.Option(help="Of each layer, those most often on.")] = 20,
    permutations: Annotated[int, typer.Option(help="Permutations that calibrate p.")] = 999,
    max_lag: Annotated[int, typer.Option(help="The largest lag that BIC may choose.")] = 3,
    out: Annotated[Path, typer.Option(help="Folder to write granger.json to.")] = CACHE,
    picture: Annotated[Path, typer.Option(help="The figure.")] = PICTURE,
) -> None:
    """Granger verdicts of neighbouring layers' features beside exact effects of the same pairs."""
    from benchmarks.granger_figure import drawn, table

    settings = GrangerSettings(
        features=features, max_lag=max_lag, permutations=permutations, least_on=30
    )
    found = compare(settings, texts, Progress({"granger": plain(settings), "texts": texts}))
    held = {"settings": plain(settings), "texts": texts, "pairs": [plain(it) for it in found]}
    write_text(out / "granger.json", json.dumps(held) + "\n")
    write_atomically(picture, drawn(found))
    print("\n".join(table(found)))


def load(file: Path) -> list[Compared]:
    """The pairs of an earlier run."""
    held = json.loads(file.read_text(encoding="utf-8"))
    remedy = "run the comparison again"
    return [rebuilt(Compared, it, "a pair", remedy=remedy) for it in held["pairs"]]


def compare(settings: GrangerSettings, n_texts: int, kept: Progress) -> list[Compared]:
    """All pairs, both ways; each step is kept, and told with the processor time that it took."""
    import sae_graphs as sg
    from sae_graphs.editing.granger.read import Reader
    from sae_graphs.editing.granger.texts import bundled_texts, token_ids

    model = sg.load("demo")
    ids = token_ids(model, bundled_texts(), length=settings.length)
    reader = Reader(model, ids[:n_texts], settings)
    layers = reader.most_active(settings.features)
    panel = reader.panel([*itertools.chain.from_iterable(layers)])
    pairs = [
        (str(source), str(target))
        for below, above in itertools.pairwise(layers)
        for source, target in itertools.product(below, above)
    ]
    print(f"{panel.n_texts} texts, {panel.n_tokens:,} tokens, {len(pairs):,} pairs", flush=True)

    def step(name: str, make: Callable[[], Any]) -> Any:
        started = time.process_time()
        if name not in kept.found:
            kept.keep(name, make())
            print(f"{name}: {time.process_time() - started:.0f} s", flush=True)
        return kept.found[name]

    lag = int(step("lag", lambda: chosen_lag(panel, pairs, settings)[0]))
    print(f"lag {lag}", flush=True)
    effects = step("effects", lambda: effects_of(model, reader, panel, pairs))

    def tests(name: str, how: GrangerSettings, given: dict[Ends, list[str]] | None) -> list[Pair]:
        held = step(name, lambda: [*map(plain, all_tests(panel, pairs, how, lag, given))])
        return [rebuilt(Pair, it, "a pair", remedy="run it again") for it in held]

    alone = tests("alone", settings, None)
    shares = {(it.source, it.target): share(it) for it in alone}
    sizes = {ends: size for ends, (_, size) in zip(pairs, effects, strict=True)}
    later = tests("later", replace(settings, same_token=False), None)
    rivals = tests("rivals", settings, strongest(shares))
    drivers = tests("drivers", settings, strongest(sizes))
    nothing = step("nothing", lambda: without_arrows(panel, pairs, settings, lag))
    print(rates(nothing), flush=True)
    bent = step("bent", lambda: nonlinear_shares(panel, pairs, settings, lag))
    weights, correlations = weights_of(model, pairs), correlations_of(panel, pairs)
    return [
        Compared(
            source,
            target,
            effect=effects[n][0],
            size=effects[n][1],
            weights=weights[n],
            correlation=correlations[n],
            alone=alone[n],
            later=later[n],
            bent=bent[n],
            rivals=rivals[n],
            drivers=drivers[n],
        )
        for n, (source, target) in enumerate(pairs)
    ]


def all_tests(
    panel: Panel,
    pairs: Sequence[Ends],
    settings: GrangerSettings,
    lag: int,
    given: dict[Ends, list[str]] | None,
) -> list[Pair]:
    """All pairs, both ways where nothing is `given` to each; q over the tests of one direction."""
    on = {name: panel.on(number)[0] for number, name in enumerate(panel.names)}
    tester, found = Tester(panel, settings, lag), []
    for ends in pairs:
        if any(on[name] < settings.least_on for name in ends):
            found.append(Pair(*ends, reason=RARELY, reason_back=RARELY))
        elif given is None:
            found.append(Pair(*ends, *tester.both(*ends, [])))
        else:
            found.append(Pair(*ends, tester.one(*ends, given[ends])))
    one_way = with_q([replace(it, backward=None) for it in found])
    back = with_q([replace(it, forward=None) for it in found])
    return [replace(a, backward=b.backward) for a, b in zip(one_way, back, strict=True)]


def nonlinear_shares(
    panel: Panel, pairs: Sequence[Ends], settings: GrangerSettings, lag: int
) -> list[float]:
    """What the source explains by nonlinear regression; its p is asked nowhere."""
    tester = Tester(panel, replace(settings, test="nonlinear", permutations=19), lag)
    tests = (tester.one(*ends, []) for ends in pairs)
    return [0.0 if it is None else it.share for it in tests]


def without_arrows(
    panel: Panel, pairs: Sequence[Ends], settings: GrangerSettings, lag: int
) -> list[tuple[float, float]]:
    """p, and that of F alone, of sources that are another text's: there is no arrow."""
    moved = [f"{name}'" for name in panel.names]
    groups = tuple(np.concatenate([it, np.roll(it, 1, axis=1)]) for it in panel.groups)
    both = Panel((*panel.names, *moved), panel.depths * 2, groups)
    tester = Tester(both, settings, lag)
    tests = [tester.one(f"{source}'", target, []) for source, target in pairs]
    return [(it.p, it.p_parametric) for it in tests if it is not None]


def rates(found: Sequence[Sequence[float]]) -> str:
    """How often each p is small though there is no arrow."""
    p, alone = np.array(found).T
    return (
        f"another text's source: p at most 0.05 in {(p <= 0.05).mean():.2%}, 0.01 in "
        f"{(p <= 0.01).mean():.2%}; of F alone at most 0.05 in {(alone <= 0.05).mean():.2%},"
        f" 0.0001 in {(alone <= 0.0001).mean():.2%}"
    )


def share(pair: Pair) -> float:
    """What the source explains of the target; nothing where that was not tested."""
    return 0.0 if pair.forward is None else pair.forward.share


def strongest(values: dict[Ends, float]) -> dict[Ends, list[str]]:
    """For each pair the other sources of its target with the largest values."""
    by_target: dict[str, list[tuple[float, str]]] = {}
    for (source, target), value in values.items():
        by_target.setdefault(target, []).append((-value, source))
    ranked = {target: [name for _, name in sorted(those)] for target, those in by_target.items()}
    return {ends: [name for name in ranked[ends[1]] if name != ends[0]][:RIVALS] for ends in values}


# -- what ablating does ----------------------------------------------------------------------------


class Sums(NamedTuple):
    """Of one layer pair, `[sources, targets]`: effects and their sizes; `[targets]`: activation."""

    effect: Numbers
    size: Numbers
    activation: Numbers


def effects_of(
    model: InstrumentedModel, reader: Reader, panel: Panel, pairs: Sequence[Ends]
) -> list[tuple[float, float]]:
    """Each source ablated by itself at all tokens but the first, in every text: what it does to the
    target, summed over texts and tokens, as shares of the target's activation: signed, absolute.
    """
    indices: list[list[int]] = [[] for _ in model.stack.layers]
    for feature in map(FeatureId.parse, panel.names):
        indices[model.stack.depths[feature.layer]].append(feature.index)
    sums = [
        Sums(np.zeros((len(a), len(b))), np.zeros((len(a), len(b))), np.zeros(len(b)))
        for a, b in itertools.pairwise(indices)
    ]
    for ids in texts_of(reader):
        clean = model.run_tokens(ids)
        for depth, total in enumerate(sums):
            more = effects_in(model, clean, depth, (indices[depth], indices[depth + 1]))
            sums[depth] = Sums(*(a + b for a, b in zip(total, more, strict=True)))
    found: dict[Ends, tuple[float, float]] = {}
    for depth, total in enumerate(sums):
        names = [
            [str(FeatureId(model.stack.layers[at].label, index)) for index in indices[at]]
            for at in (depth, depth + 1)
        ]
        scale = np.where(total.activation > 0, total.activation, np.inf)
        for (i, source), (j, target) in itertools.product(*map(enumerate, names)):
            effect, size = total.effect[i, j] / scale[j], total.size[i, j] / scale[j]
            found[source, target] = float(effect), float(size)
    return [found[ends] for ends in pairs]


def texts_of(reader: Reader) -> Iterator[tuple[int, ...]]:
    """The token ids that the panel is made of, a text at a time."""
    for group in reader.groups:
        yield from map(tuple, reader.tokens(group).tolist())


def effects_in(
    model: InstrumentedModel,
    clean: Any,
    depth: int,
    indices: tuple[Sequence[int], Sequence[int]],
) -> Sums:
    """One text's effects of a layer's features on the next one's."""
    import torch

    from sae_graphs.effects.ablations import Places, ablations_of
    from sae_graphs.effects.exact import measure

    sources, targets = indices
    effect = np.zeros((len(sources), len(targets)))
    size = np.zeros_like(effect)
    everywhere = torch.arange(len(clean))
    places = Places(everywhere > 0, everywhere, each=False)
    wanted = torch.tensor(sorted(sources))
    ablations = ablations_of(clean, depth, places, features=wanted)
    row = {index: number for number, index in enumerate(sources)}
    column = np.full(model.stack.layers[depth + 1].n_features, -1)
    column[list(targets)] = range(len(targets))
    if len(ablations):
        for found in measure(model, clean, ablations, places):
            at = column[found.targets]
            kept = at >= 0
            rows = np.array([row[index] for index in found.sources[kept].tolist()], dtype=int)
            values = found.values[kept].astype(np.float64)
            np.add.at(effect, (rows, at[kept]), values)
            np.add.at(size, (rows, at[kept]), np.abs(values))
    acts = clean.activations[depth + 1].of(torch.tensor(targets))[1:]  # [T - 1, targets]
    return Sums(effect, size, acts.double().sum(0).numpy())


# -- what needs no ablation ------------------------------------------------------------------------


def weights_of(model: InstrumentedModel, pairs: Sequence[Ends]) -> list[float]:
    """The cosine of the source's decoder direction and the target's encoder's."""
    layers = {layer.label: layer.sae for layer in model.stack.layers}
    found = []
    for source, target in pairs:
        one, other = map(FeatureId.parse, (source, target))
        out = layers[one.layer].W_dec[one.index]
        read = layers[other.layer].W_enc[:, other.index]
        found.append(float(out @ read / (out.norm() * read.norm())))
    return found


def correlations_of(panel: Panel, pairs: Sequence[Ends]) -> list[float]:
    """Of the two series at the same token, each text's means taken out."""
    flat = [
        np.concatenate([group[n].ravel() for group in panel.centred().groups])
        for n in range(len(panel.names))
    ]
    unit = [it / (float(np.linalg.norm(it)) or 1.0) for it in flat]
    at = {name: number for number, name in enumerate(panel.names)}
    return [float(unit[at[source]] @ unit[at[target]]) for source, target in pairs]


def significant(test: GrangerTest | None, level: float = 0.05) -> bool:
    """Whether a direction was tested, and q is at most the level."""
    return test is not None and test.q <= level


if __name__ == "__main__":
    typer.run(main)
