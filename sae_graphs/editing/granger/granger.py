"""`granger`: series of a clean run over many texts, and which of two predicts the other.

1. Which pairs. 2. Their series. 3. The lag, once for all. 4. Each pair, both ways, beside
permutations of texts. 5. q over all, and the report.

Granger, "Investigating causal relations by econometric models and cross-spectral methods" (1969).
"""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from sae_graphs._version import __version__
from sae_graphs.bars import Progress, heard, step, with_bar
from sae_graphs.checkpoint import run_key
from sae_graphs.editing.granger.pairs import chosen_lag, granger_pairs
from sae_graphs.editing.granger.panel import Panel
from sae_graphs.editing.granger.partial import TOGETHER, PairsPartial
from sae_graphs.editing.granger.read import Reader, meanings
from sae_graphs.editing.granger.records import GrangerReport, Pair, Series, SeriesName
from sae_graphs.editing.granger.settings import Detrend, GrangerSettings, Regression, each
from sae_graphs.editing.granger.texts import OWN, bundled_texts, texts_in, token_ids
from sae_graphs.errors import SaeGraphsError
from sae_graphs.features.reference import BUNDLED, bundled_text
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.keywords import with_settings
from sae_graphs.model.instrument import InstrumentedModel, weights_of, with_saes
from sae_graphs.runs import made_with
from sae_graphs.schema import plain
from sae_graphs.words import counted

DEMO = "demo"  # the bundled model, which has a language of its own
MOST_PAIRS = 5_000
LEAST_IN_TEXTS = 5  # texts in which a feature must be on
Names = str | FeatureId | SeriesName | Sequence[str | FeatureId | SeriesName]
Ends = tuple[SeriesName, SeriesName]


class Asked(NamedTuple):
    """The pairs that are asked for, further series that are given, and all that in words."""

    pairs: tuple[tuple[SeriesName, SeriesName], ...]
    given: tuple[SeriesName, ...]
    words: str

    @property
    def names(self) -> tuple[SeriesName, ...]:
        """Every series, once."""
        return tuple(dict.fromkeys((*itertools.chain.from_iterable(self.pairs), *self.given)))


@with_bar("reading texts")
@with_settings(GrangerSettings)
def granger(
    model: InstrumentedModel,
    source: Names | None = None,
    target: Names | None = None,
    *,
    graph: CausalGraph | str | Path | None = None,
    texts: Sequence[str] | str | Path | None = None,
    features: int = 4,
    lag: int | None = None,
    max_lag: int = 5,
    same_token: bool = True,
    detrend: Detrend = "linear",
    test: Regression = "linear",
    given: Names = (),
    multivariate: bool = False,
    permutations: int = 999,
    level: float = 0.05,
    least_on: int = 30,
    length: int = 128,
    together: int = 24,
    seed: int = 0,
    settings: GrangerSettings | None = None,
    resume: PairsPartial | str | Path | None = None,
    progress: Progress | bool | None = None,
) -> GrangerReport:
    """Granger tests: does one series over tokens help to predict another, beyond its own past?

        sg.granger(model, "2.232", "3.734").pairs[0].forward.q

    Every `source` is set beside every `target`, both ways; or the ends of each edge of a saved
    `graph`; or, where neither is given, the features of each layer that are most often on beside
    those of the next. Series are `2.232` (a feature's activation), `projection:2.232` (of the
    stream on the feature's decoder direction), `attended:2.232` (what the next block's attention
    brings of it) and `norm:2` (of the stream).

    `texts` are a list of texts, or a file or folder of them; by default the bundled model's own,
    for other models the bundled English text.
    The options from `features` to `seed` are those of `GrangerSettings`, which says what each does.
    With a folder to `resume` from, pairs that an earlier, interrupted run of the same kind tested
    are read, and those that this one tests are kept there; it stays until you delete it.

    `progress` hears how many texts are read, once or twice, then how many pairs are tested.
    What predicts need not act: only an ablation tells. Raises `SaeGraphsError` where a series is
    none of the model's, or the texts are too few or too short.
    """
    started = time.perf_counter()
    settings = settings or GrangerSettings()
    settings = replace(settings, given=tuple(str(SeriesName.parse(it)) for it in settings.given))
    model, told = with_saes(model), heard(progress)
    graph = _graph(model, graph)
    asked = _asked(source, target, graph, settings)
    read, words = _texts(texts, model.name)
    reader = Reader(model, token_ids(model, read, length=settings.length), settings)
    asked = asked if asked.pairs else _most_active(reader, settings, told)
    _check_number(asked)

    step(told, "reading series")
    panel = reader.panel(asked.names, told)
    rarely = _rarely(panel, settings)
    ends = [(str(source), str(target)) for source, target in asked.pairs]
    testable = [pair for pair in ends if not any(map(rarely, pair))]
    if settings.lag is None:
        step(told, "choosing the lag")
    chosen, criteria = chosen_lag(panel, testable, settings)
    partial = _begun(resume, reader, settings, chosen, ends)
    step(told, "testing pairs")
    pairs = granger_pairs(
        panel, ends, settings, lag=chosen, rarely=rarely, progress=told, partial=partial
    )
    return GrangerReport(
        settings=settings,
        model=model.name,
        saes=model.stack.name,
        about=asked.words,
        texts=words,
        n_texts=panel.n_texts,
        n_tokens=panel.n_tokens,
        lag=chosen,
        criteria=criteria,
        series=_series(model, asked, panel),
        pairs=tuple(sorted(pairs, key=_strength)),
        warnings=tuple(_warnings(settings, pairs, len(read) - panel.n_texts)),
        made={"seconds": round(time.perf_counter() - started, 3), **made_with()},
    )


# -- the steps -------------------------------------------------------------------------------------


def _asked(
    source: Names | None,
    target: Names | None,
    graph: CausalGraph | None,
    settings: GrangerSettings,
) -> Asked:
    """The pairs that are named, or a graph's; none where the most active ones are wanted."""
    given = tuple(map(SeriesName.parse, settings.given))
    sources, targets = _names(source), _names(target)
    if graph is not None:
        if sources or targets:
            raise SaeGraphsError(
                "a graph names its own pairs; give it, or source and target, not both"
            )
        return Asked(edges_of(graph), given, f"the edges of the graph of {graph.prompt}")
    if bool(sources) != bool(targets):
        raise SaeGraphsError(
            f"a {'source' if sources else 'target'} alone; give both a source and a target, such "
            "as 2.232 and 3.734"
        )
    pairs = [(a, b) for a, b in itertools.product(sources, targets) if a != b]
    if sources and not pairs:
        raise SaeGraphsError(f"{sources[0]} is its own target; give two series")
    ends = [" ".join(map(str, names)) for names in (sources, targets)]
    return Asked(_once(pairs), given, " to ".join(ends))


def _once(pairs: Iterable[Ends]) -> tuple[Ends, ...]:
    """Pairs without those that are there the other way round: each is tested both ways."""
    return tuple({frozenset(pair): pair for pair in reversed([*pairs])}.values())[::-1]


def _graph(model: InstrumentedModel, given: CausalGraph | str | Path | None) -> CausalGraph | None:
    """The graph, read; raises `SaeGraphsError` where it is of another model, or of other SAEs."""
    graph = CausalGraph.load(given) if isinstance(given, str | Path) else given
    if graph is None:
        return None
    made, own = (graph.run.model, graph.run.saes), (model.name, model.stack.name)
    if made != own:
        raise SaeGraphsError(
            f"the graph is of {made[0]!r} with {made[1]!r}, and this is {own[0]!r} with "
            f"{own[1]!r}: load those, or give another graph"
        )
    return graph


def edges_of(graph: CausalGraph) -> tuple[tuple[SeriesName, SeriesName], ...]:
    """The pairs of features that a graph's edges join, tokens aside.

    Raises `SaeGraphsError` where no edge joins two features.
    """
    found = dict.fromkeys(
        (
            SeriesName("feature", edge.source.layer, edge.source.index),
            SeriesName("feature", edge.target.layer, edge.target.index),
        )
        for edge in graph.edges
        if edge.source.is_feature and edge.target.is_feature
    )
    pairs = _once(pair for pair in found if pair[0] != pair[1])
    if not pairs:
        raise SaeGraphsError("no edge of the graph joins two features; give a source and a target")
    return pairs


def _names(given: Names | None) -> tuple[SeriesName, ...]:
    if given is None:
        return ()
    return tuple(dict.fromkeys(map(SeriesName.parse, each(given, "source and target"))))


def _most_active(reader: Reader, settings: GrangerSettings, told: Progress | None) -> Asked:
    step(told, "looking for features")
    layers = reader.most_active(settings.features, told)
    pairs = [
        pair
        for below, above in itertools.pairwise(layers)
        for pair in itertools.product(below, above)
    ]
    if not pairs:
        raise SaeGraphsError("no feature is on in these texts; give others, or name the series")
    given = tuple(map(SeriesName.parse, settings.given))
    words = f"the {counted(settings.features, 'feature')} of each layer that are most often on"
    return Asked(tuple(pairs), given, words)


def _texts(texts: Sequence[str] | str | Path | None, model: str) -> tuple[tuple[str, ...], str]:
    """The texts, and what they are called."""
    if texts is None:
        return (bundled_texts(), OWN) if model == DEMO else (tuple(bundled_text()), BUNDLED)
    if isinstance(texts, str | Path):
        return texts_in(Path(texts)), Path(texts).name
    return tuple(texts), "the texts given"


def _rarely(panel: Panel, settings: GrangerSettings) -> Callable[[str], str]:
    """Says why a series cannot be tested: its feature is on too rarely; "" where it can."""
    on = {name: panel.on(number) for number, name in enumerate(panel.names)}

    def rarely(name: str) -> str:
        tokens, texts = on[name]
        if tokens >= settings.least_on and texts >= LEAST_IN_TEXTS:
            return ""
        where = f"{counted(tokens, 'token')} of {counted(texts, 'text')}"
        return f"{name} is on at {where}, too rarely to be tested"

    return rarely


def _begun(
    resume: PairsPartial | str | Path | None,
    reader: Reader,
    settings: GrangerSettings,
    lag: int,
    ends: Sequence[tuple[str, str]],
) -> PairsPartial | None:
    """Where pairs are kept, with what an earlier run of the same kind left there."""
    partial = PairsPartial(resume) if isinstance(resume, str | Path) else resume
    if partial is not None:
        model = reader.model
        facts = [__version__, model.name, plain(settings), lag, ends, reader.digest]
        key = functools.partial(run_key, facts, weights_of(model))
        partial.begin(key, range(-(-len(ends) // TOGETHER)))
    return partial


def _series(model: InstrumentedModel, asked: Asked, panel: Panel) -> tuple[Series, ...]:
    """What the report says of each series: how often it is on, and what it peaks on."""
    said = meanings(model, asked.names)
    return tuple(
        Series(name, *panel.on(number), said.get(name, ""))
        for number, name in enumerate(panel.names)
    )


def _check_number(asked: Asked) -> None:
    if len(asked.pairs) > MOST_PAIRS:
        raise SaeGraphsError(
            f"{len(asked.pairs):,} pairs; at most {MOST_PAIRS:,} are tested at once: give fewer "
            "features"
        )


def _strength(pair: Pair) -> tuple[Any, ...]:
    tests = [it for it in (pair.forward, pair.backward) if it is not None]
    return (not tests, -(pair.forward.share if pair.forward else 0.0), pair.source, pair.target)


def _warnings(settings: GrangerSettings, pairs: Sequence[Pair], left_out: int) -> list[str]:
    found = []
    if left_out:
        found.append(f"{counted(left_out, 'text')} too short for the lags: left out")
    if settings.test == "nonlinear":
        found.append(
            "p of the nonlinear test is not calibrated: it finds too much where features fire by "
            "topic, or where the target drives its source; it rests on one draw of frequencies, so "
            "try another seed, too"
        )
    tests = [it for pair in pairs for it in (pair.forward, pair.backward) if it is not None]
    least = 1 / (settings.permutations + 1)
    if any(it.p <= least and it.q > settings.level for it in tests):
        enough = math.ceil(len(tests) / settings.level)
        found.append(
            f"{settings.permutations} permutations are too few for "
            f"{counted(len(tests), 'test')}: none reaches what some of these found, and q is above "
            f"{settings.level:g} all the same; give up to {enough:,}"
        )
    return found
