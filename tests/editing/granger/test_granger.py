"""Series of a tiny model beside its clean runs, text by text; `granger` from end to end."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sae_graphs as sg
from sae_graphs.bars import Bar
from sae_graphs.editing.granger.granger import granger
from sae_graphs.editing.granger.read import Reader
from sae_graphs.editing.granger.records import SeriesName
from sae_graphs.editing.granger.settings import GrangerSettings
from sae_graphs.editing.granger.texts import bundled_texts, texts_in, token_ids
from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.tracing.attention import patterns
from tests.support.models import CORPUS
from tests.support.stacks import one_line

WORDS = CORPUS.split()
TEXTS = [" ".join(random.Random(n).choices(WORDS, k=8 + n % 3)) for n in range(24)]
SMALL: dict[str, Any] = {"lag": 1, "permutations": 19, "least_on": 5, "together": 8}


def test_series_are_those_of_each_text_alone(tiny: InstrumentedModel) -> None:
    settings = GrangerSettings(max_lag=2, together=8)
    ids = token_ids(tiny, TEXTS, length=64)
    reader = Reader(tiny, ids, settings)
    active = reader.most_active(1)[1][0].index
    named = [f"1.{active}", f"projection:1.{active}", f"attended:1.{active}", "norm:2"]
    panel = reader.panel([SeriesName.parse(name) for name in named])
    assert panel.names == tuple(named) and panel.depths == (2, 2, 3, 4)
    direction = tiny.stack.layers[1].sae.W_dec[active]
    for group, together in zip(panel.groups, reader.groups, strict=True):
        for place, number in enumerate(together.texts):
            run = tiny.run_tokens(ids[number][: together.length])
            acts = run.activations[1].dense()[:, active]
            looked = list(patterns(tiny, run))[1].mean(0).double()
            expected = [
                acts,
                run.streams[1] @ direction / direction.norm(),
                looked[:, 1:] @ acts[1:],
                run.streams[2].norm(dim=-1),
            ]
            for series, values in enumerate(expected):
                found = group[series, place]
                np.testing.assert_allclose(found, values[1:].numpy(), rtol=1e-5, atol=1e-6)


def test_the_most_active_features_are_counted(tiny: InstrumentedModel) -> None:
    settings = GrangerSettings(max_lag=1, together=8)
    ids = token_ids(tiny, TEXTS, length=64)
    reader = Reader(tiny, ids, settings)
    times = np.zeros(tiny.stack.layers[2].n_features)
    tokens = 0
    for group in reader.groups:
        for number in group.texts:
            run = tiny.run_tokens(ids[number][: group.length])
            times += (run.activations[2].dense()[1:] != 0).sum(0).numpy()
            tokens += len(run) - 1
    rare = [(-n, i) for i, n in enumerate(times) if 0 < n < 0.3 * tokens]
    found = [it.index for it in reader.most_active(3)[2]]
    assert found == [index for _, index in sorted(rare)[:3]]


def test_from_a_model_to_a_report(tiny: InstrumentedModel) -> None:
    drawn: dict[str, tuple[int, int | None]] = {}
    bar = Bar(lambda what, *far: drawn.update({what: far}), "reading texts")
    report = granger(tiny, texts=TEXTS, features=2, progress=bar, max_lag=2, **SMALL)
    steps = {"looking for features": (24, 24), "reading series": (24, 24)}
    assert list(drawn.items()) == [*steps.items(), ("testing pairs", (12, 12))]
    assert report.n_texts == 24 and report.lag == 1 and report.criteria == ()
    assert len(report.pairs) == 12 and sum(report.counts.values()) == 12
    assert report.texts == "the texts given" and report.model == "tiny"
    shares = [it.forward.share for it in report.pairs if it.forward is not None]
    assert shares == sorted(shares, reverse=True)
    told: list[tuple[int, int]] = []
    again = sg.granger(
        tiny, texts=TEXTS, features=2, progress=lambda *it: told.append(it), max_lag=2, **SMALL
    )
    assert told[0][1] == 24 and told[-1] == (12, 12)  # texts, then pairs
    assert again.pairs == report.pairs
    pair = next(it for it in report.pairs if it.forward is not None)
    alone = granger(tiny, pair.source, pair.target, texts=TEXTS, max_lag=2, **SMALL).pairs[0]
    assert alone.forward is not None and pair.forward is not None
    assert alone.forward.f == pytest.approx(pair.forward.f, rel=1e-5)
    drawn.clear()
    free = {**SMALL, "lag": None, "max_lag": 2}
    granger(tiny, pair.source, pair.target, texts=TEXTS, progress=bar, **free)
    assert list(drawn) == ["reading series", "choosing the lag", "testing pairs"]


def test_the_edges_of_a_graph(tiny: InstrumentedModel, tmp_path: Path) -> None:
    graph = sg.causal_graph(tiny, TEXTS[0], select="effect", top_k=2, min_path_edges=1)
    graph.save(tmp_path / "graph.json")
    report = granger(tiny, graph=tmp_path / "graph.json", texts=TEXTS, **SMALL)
    edges = {(str(edge.source), str(edge.target)) for edge in graph.edges}
    assert {(it.source, it.target) for it in report.pairs} == edges
    assert report.about == f"the edges of the graph of {TEXTS[0]}"


def test_a_feature_that_is_never_on_is_untestable(tiny: InstrumentedModel) -> None:
    report = granger(tiny, "1.3", "2.5", texts=TEXTS, **{**SMALL, "least_on": 10_000})
    (pair,) = report.pairs
    assert pair.verdict(0.05) == "untestable" and "too rarely to be tested" in pair.reason


def test_a_graph_of_another_model_is_one_line(tiny: InstrumentedModel) -> None:
    graph = sg.causal_graph(tiny, TEXTS[0], select="effect", top_k=2, min_path_edges=1)
    other = replace(graph, run=replace(graph.run, saes="others"))
    with pytest.raises(SaeGraphsError, match="the graph is of 'tiny' with 'others'") as caught:
        granger(tiny, graph=other, texts=TEXTS, **SMALL)
    one_line(caught)


def test_attention_is_read_once_for_all_its_series(
    tiny: InstrumentedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def counted(model: InstrumentedModel, run: Any) -> Any:
        seen.append(1)
        return patterns(model, run)

    monkeypatch.setattr("sae_graphs.editing.granger.read.patterns", counted)
    reader = Reader(tiny, token_ids(tiny, TEXTS, length=64), GrangerSettings(max_lag=2))
    names = [SeriesName("attended", "1", index) for index in range(5)]
    reader.panel(names)
    assert len(seen) == reader.n_texts


def test_names_are_told_by_what_they_mean(tiny: InstrumentedModel) -> None:
    """A feature by its id or with blanks and zeros; a pair that is named both ways is one."""
    given = (" feature:1.04 ", FeatureId("0", 2))
    report = granger(tiny, FeatureId("1", 3), "2.5", given=given, texts=TEXTS, **SMALL)
    assert report.settings.given == ("1.4", "0.2")
    assert [(it.source, it.target) for it in report.pairs] == [("1.3", "2.5")]
    ends = ["1.3", "2.5"]
    twice = granger(tiny, ends, ends, texts=TEXTS, **SMALL)
    assert [(it.source, it.target) for it in twice.pairs] == [("1.3", "2.5")]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"source": "1.3"}, "a source alone"),
        ({"source": "1.3", "target": "1.3"}, "its own target"),
        ({"source": "9.3", "target": "1.3"}, "no SAE layer '9'"),
        ({"source": "1.40", "target": "1.3"}, "has features 0 to 39"),
        ({"source": "attended:3.1", "target": "1.3"}, "no attention follows layer 3"),
        ({"source": 5, "target": "1.3"}, "5 is no name of a series"),
        ({"given": None}, "None is no name of a series"),
        ({"texts": TEXTS[:5]}, "5 of 5 texts have the .* tokens"),
        ({"texts": ["a b"] * 30, "lag": 9}, "0 of 30 texts"),
        ({"texts": "nowhere.txt"}, "cannot read texts from nowhere.txt"),
        ({"texts": TEXTS[:8], "lag": 3, "features": 8, "multivariate": True}, "parameters for"),
    ],
)
def test_what_cannot_be_tested_is_one_line(
    tiny: InstrumentedModel, options: dict[str, Any], told: str
) -> None:
    given = {"texts": TEXTS, **SMALL, **options}
    with pytest.raises(SaeGraphsError, match=told) as caught:
        granger(tiny, **given)
    one_line(caught)


def test_texts_of_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("one\n\ntwo \n")
    (tmp_path / "list.json").write_text('["a", " ", "b\\nc"]')
    (tmp_path / "many").mkdir()
    for name in ("b.txt", "a.md", "c.png"):
        (tmp_path / "many" / name).write_text(name)
    assert texts_in(tmp_path / "lines.txt") == ("one", "two ")
    assert texts_in(tmp_path / "list.json") == ("a", "b\nc")
    assert texts_in(tmp_path / "many") == ("a.md", "b.txt")
    assert len(bundled_texts()) >= 200
    (tmp_path / "wrong.json").write_text('{"a": 1}')
    (tmp_path / "empty.txt").write_text(" \n")
    for name, told in (("wrong.json", "no list of strings"), ("empty.txt", "holds no text")):
        with pytest.raises(SaeGraphsError, match=told) as caught:
            texts_in(tmp_path / name)
        one_line(caught)


def test_without_texts_a_model_reads_english(tiny: InstrumentedModel) -> None:
    report = granger(tiny, "norm:1", "norm:2", lag=1, permutations=19, length=12)
    assert report.texts == "bundled English text" and report.n_texts > 40
    assert report.pairs[0].forward is not None


def test_bos_comes_first_and_once(tiny: InstrumentedModel) -> None:
    long = " ".join(TEXTS[:6])
    ids = token_ids(tiny, ["the cat", "<bos>the cat", long], length=64)
    assert ids[0] == ids[1] == tiny.tokenize("the cat")
    assert len(ids[2]) == 32, "as many as the model reads"
    assert len(token_ids(tiny, [long], length=8)[0]) == 8
