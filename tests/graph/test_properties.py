"""Laws, on random input: top-k, paths, files and features against brute force."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace

import networkx as nx
import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from sae_graphs.effects.ablations import ablations_of, places_of
from sae_graphs.effects.arrays import Effects, MeasuredEdge, keep_top
from sae_graphs.effects.exact import changed_rows
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.feature_page import FeaturePage, LogitToken
from sae_graphs.graph.graph import CausalGraph, assemble
from sae_graphs.graph.node_link import from_networkx
from sae_graphs.graph.paths import longest_path_edges, on_long_paths, strongest_paths
from sae_graphs.graph.records import Context, Edge, TokenEffect
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.interventions import scale
from tests.support.effect_graphs import effect_graph, effect_settings
from tests.support.effects import effects_of
from tests.support.graphs import LAYERS, graph_of, node, run_record
from tests.support.slow import examples

few = examples(60, cheap=True)
very_few = examples(12, suppress_health_check=[HealthCheck.function_scoped_fixture])


# -- features --------------------------------------------------------------------------------------

labels = st.from_regex(r"[A-Za-z0-9_-]{1,6}", fullmatch=True)
features = st.builds(FeatureId, labels, st.integers(0, 10**9), st.none() | st.integers(0, 10**6))


@given(features)
def test_features_round_trip(feature: FeatureId) -> None:
    assert FeatureId.parse(str(feature)) == feature
    assert FeatureId.parse(f" {feature}\n") == feature


@given(st.integers(1, 10**6))
def test_last_zeros_stay(index: int) -> None:
    assert FeatureId.parse(f"5.{index}00").index == 100 * index


# -- small random graphs ---------------------------------------------------------------------------


@st.composite
def edge_lists(draw: st.DrawFn) -> list[Edge]:
    """Edges between neighbours of 4 layers x 3 features; dyadic, so that sums are exact."""
    pairs = [
        (FeatureId(LAYERS[d], i), FeatureId(LAYERS[d + 1], j))
        for d in range(3)
        for i in range(3)
        for j in range(3)
    ]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=14))
    sizes = st.integers(-8, 8).filter(bool)
    return [Edge(source, target, draw(sizes) / 4) for source, target in chosen]


def every_path(edges: list[Edge]) -> Iterator[tuple[Edge, ...]]:
    """All directed paths of at least one edge, by trying everything."""
    reach: list[tuple[Edge, ...]] = [(edge,) for edge in edges]
    while reach:
        yield from reach
        reach = [
            (*path, edge) for path in reach for edge in edges if path[-1].target == edge.source
        ]


@few
@given(edge_lists(), st.integers(1, 4))
def test_path_filter_is_brute_force(edges: list[Edge], least: int) -> None:
    wanted = {edge for path in every_path(edges) if len(path) >= least for edge in path}
    assert on_long_paths(edges, least) == tuple(edge for edge in edges if edge in wanted)


@few
@given(edge_lists())
def test_longest_path_is_brute_force(edges: list[Edge]) -> None:
    assert longest_path_edges(edges) == max(map(len, every_path(edges)), default=0)


@few
@given(edge_lists(), st.integers(1, 5), st.booleans(), st.booleans(), st.data())
def test_strongest_paths_are_brute_force(
    edges: list[Edge], limit: int, from_one: bool, to_one: bool, data: st.DataObject
) -> None:
    ends = sorted({end for edge in edges for end in (edge.source, edge.target)}, key=str)
    source = data.draw(st.sampled_from(ends)) if from_one and ends else None
    target = data.draw(st.sampled_from(ends)) if to_one and ends else None
    sources, targets = {e.source for e in edges}, {e.target for e in edges}

    def wanted(path: tuple[Edge, ...]) -> bool:
        start, end = path[0].source, path[-1].target
        return (start == source if source else start not in targets) and (
            end == target if target else end not in sources
        )

    every = [path for path in every_path(edges) if wanted(path)]
    found = strongest_paths(edges, limit=limit, source=source, target=target)
    sizes = sorted((sum(abs(edge.effect) for edge in path) for path in every), reverse=True)
    assert [path.total_abs_effect for path in found] == sizes[:limit]
    assert {path.edges for path in found} <= set(every)
    assert len({path.edges for path in found}) == len(found)
    shuffled = strongest_paths(edges[::-1], limit=limit, source=source, target=target)
    assert [path.edges for path in shuffled] == [path.edges for path in found]


@few
@given(edge_lists())
def test_components_are_brute_force(edges: list[Edge]) -> None:
    graph = graph_of(edges)
    undirected = nx.Graph([(edge.source, edge.target) for edge in edges])
    parts = graph.components()
    assert {frozenset(n.feature for n in part.nodes) for part in parts} == {
        frozenset(part) for part in nx.connected_components(undirected)
    }
    sizes = [sum(abs(edge.effect) for edge in part.edges) for part in parts]
    assert sizes == sorted(sizes, reverse=True)
    assert sorted(map(str, itertools.chain(*(part.edges for part in parts)))) == sorted(
        map(str, edges)
    )
    again = graph_of(edges[::-1])
    assert again == graph


@few
@given(edge_lists(), st.permutations(range(12)))
def test_assembly_does_not_depend_on_order(edges: list[Edge], order: list[int]) -> None:
    nodes = [node(FeatureId(LAYERS[i // 3], i % 3)) for i in order]
    graph = assemble(run_record(), nodes, edges)
    assert graph == graph_of(edges)
    assert len(graph.nodes) == len({end for edge in edges for end in (edge.source, edge.target)})


# -- files -----------------------------------------------------------------------------------------

text = st.text(st.characters(), max_size=12) | st.sampled_from(
    ["\x00", "\ud83d", "\u202eabc", "<script>", "\"&'", "\u2028", "", "\\u0000", "😀"]
)
finite = st.floats(allow_nan=False, allow_infinity=False)
logits = st.lists(st.builds(LogitToken, text, finite), max_size=2).map(tuple)
pages = st.sampled_from([None, FeaturePage("missing"), FeaturePage("unavailable")]) | st.builds(
    FeaturePage,
    status=st.just("found"),
    explanation=st.none() | text,
    density=st.none() | st.floats(0, 1),
    max_activation=st.none() | finite,
    top_logits=logits,
    bottom_logits=logits,
    gave_contexts=st.booleans(),
)


@few
@given(st.lists(text, min_size=4, max_size=4), text, text, finite, finite.filter(bool), pages)
def test_files_round_trip(
    tokens: list[str],
    prompt: str,
    token: str,
    value: float,
    effect: float,
    page: FeaturePage | None,
) -> None:
    first, second = FeatureId("0", 3), FeatureId("1", 5)
    described = node(
        first,
        activation=value,
        contexts=(Context((token, prompt), (value, 0.0)),),
        promotes=(TokenEffect(token, value, 0.5),),
        page=page,
    )
    run = run_record(
        prompt=prompt,
        tokens=tuple(tokens),
        next_tokens=((token, 0.5),),
        warnings=(token,),
        settings={"top_k": 3, "note": token, "pin": [], "layers": None},
    )
    graph = assemble(run, [described, node(second)], [Edge(first, second, effect)])
    data = json.loads(json.dumps(nx.node_link_data(graph.to_networkx(), edges="edges")))
    again = CausalGraph(*from_networkx(nx.node_link_graph(data, edges="edges")))
    assert again == graph
    assert again.run.tokens == tuple(tokens)


@pytest.mark.parametrize("hostile", ["\ud83d", "\x00", "\u202e", "a\r\nb", "\ufeff"])
def test_hostile_text_reaches_the_disk_and_back(
    hostile: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    graph = graph_of({("0.1", "1.1"): 1.0})
    graph = replace(graph, run=replace(graph.run, prompt=hostile, tokens=(hostile,) * 4))
    file = graph.save(tmp_path_factory.mktemp("run"))
    assert CausalGraph.load(file) == graph


# -- top-k -----------------------------------------------------------------------------------------

# Few distinct sizes, so that ties are the rule.
effects = st.lists(
    st.lists(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, 2.0]), min_size=3, max_size=3),
    min_size=1,
    max_size=6,
)


def blocks_of(layers: list[list[list[float]]], batch: int) -> list[Effects]:
    return [
        effects_of(
            depth,
            range(2 * start, 2 * (start + len(rows[start : start + batch])), 2),
            rows[start : start + batch],
        )
        for depth, rows in enumerate(layers)
        for start in range(0, len(rows), batch)
    ]


@few
@given(
    st.lists(effects, min_size=1, max_size=3),
    st.integers(1, 30),
    st.sampled_from(["layer", "source", "graph"]),
    st.integers(1, 6),
)
def test_top_k_is_a_prefix_of_the_sorted_list(
    layers: list[list[list[float]]], k: int, per: str, batch: int
) -> None:
    everything = sorted(
        (
            MeasuredEdge(depth, 2 * source, None, target, None, effect)
            for depth, rows in enumerate(layers)
            for source, row in enumerate(rows)
            for target, effect in enumerate(row)
            if effect != 0
        ),
        key=lambda e: (-abs(e.effect), e.depth, e.source, e.target),
    )
    sets: dict[object, int] = {}
    expected = []
    for edge in everything:
        group = {"layer": edge.depth, "source": (edge.depth, edge.source), "graph": 0}[per]
        sets[group] = sets.get(group, 0) + 1
        if sets[group] <= k:
            expected.append(edge)
    kept, totals = keep_top(blocks_of(layers, batch), k, per)  # type: ignore[arg-type]
    assert kept == expected
    for depth, rows in enumerate(layers):
        assert totals[depth] == sum(abs(value) for row in rows for value in row)
    more, _ = keep_top(blocks_of(layers, 1), k + 1, per)  # type: ignore[arg-type]
    assert set(kept) <= set(more)


# -- the engine ------------------------------------------------------------------------------------

words = st.lists(
    st.sampled_from(["the", " cat", " (", "old", ")", " dog", "x", "é", "\n"]),
    min_size=1,
    max_size=8,
).map("".join)


@very_few
@given(words)
def test_edges_go_forward_and_are_deterministic(tiny: InstrumentedModel, prompt: str) -> None:
    graph = effect_graph(tiny, prompt, min_path_edges=1)
    assert graph.edges
    for edge in graph.edges:
        assert graph.depths[edge.target.layer] == graph.depths[edge.source.layer] + 1
    assert graph.run.kept_abs_effect <= graph.run.total_abs_effect * (1 + 1e-12)
    assert effect_graph(tiny, prompt, min_path_edges=1) == graph


@very_few
@given(words, st.integers(0, 2))
def test_inactive_features_and_scale_one_change_nothing(
    tiny: InstrumentedModel, prompt: str, depth: int
) -> None:
    clean = tiny.clean_run(prompt)
    places = places_of(clean, effect_settings())
    assert len(ablations_of(clean, depth, places, scale(1))) == 0
    active = set(ablations_of(clean, depth, places).features.tolist())
    acts = clean.activations[depth].dense()[places.ablated]
    assert active == set((acts != 0).any(0).nonzero()[:, 0].tolist())
    silent = torch.tensor(sorted(set(range(40)) - active), dtype=torch.int64)
    assert len(ablations_of(clean, depth, places, features=silent)) == 0


@very_few
@given(words, st.integers(0, 2))
def test_only_ablated_positions_change(tiny: InstrumentedModel, prompt: str, depth: int) -> None:
    clean = tiny.clean_run(prompt)
    stream = clean.streams[depth]
    acts = clean.activations[depth].dense().T != 0  # [F, T]
    for options in (
        effect_settings(),
        effect_settings(ablate="read"),
        effect_settings(ablate="each"),
    ):
        places = places_of(clean, options)
        ablations = ablations_of(clean, depth, places)
        rows = changed_rows(tiny, clean, ablations)
        touched = (rows.whole(stream, len(ablations)) != stream).any(-1)  # [S, T]
        wanted = (acts & places.ablated)[ablations.features]
        if places.each:
            assert (touched.sum(1) == 1).all()
            assert len(ablations) == (acts & places.ablated).sum()
            assert not (touched & ~wanted).any()
        else:
            assert torch.equal(touched, wanted)
