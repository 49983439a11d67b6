"""Several prompts, token ids instead of text, and a bar."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from rich.console import Console
from rich.progress import Progress

import sae_graphs as sg
from sae_graphs import bars
from sae_graphs.cli import console
from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.graph import CausalGraph

OPTIONS: dict[str, Any] = {"select": "effect", "min_path_edges": 1, "top_k": 3}


@pytest.fixture(scope="module")
def demo() -> sg.InstrumentedModel:
    return sg.load("demo")


def numbers(graph: CausalGraph) -> list[tuple[str, float]]:
    return [(str(edge), edge.effect) for edge in graph.edges]


# -- several prompts -------------------------------------------------------------------------------


def test_a_list_of_prompts_gives_a_list_of_graphs(tiny: sg.InstrumentedModel) -> None:
    prompts = ["the cat sat", "the dog ran"]
    told: list[tuple[int, int]] = []
    graphs = sg.causal_graph(
        tiny, prompts, progress=lambda done, total: told.append((done, total)), **OPTIONS
    )
    assert [graph.prompt for graph in graphs] == prompts
    assert graphs == [sg.causal_graph(tiny, prompt, **OPTIONS) for prompt in prompts]
    assert told == [(1, 2), (2, 2)]
    (one,) = sg.causal_graph(tiny, ("the cat sat",), **OPTIONS)
    assert one == graphs[0]


def test_several_prompts_as_token_ids(tiny: sg.InstrumentedModel) -> None:
    ids = [list(tiny.tokenize(text)) for text in ("the cat sat", "the dog ran")]
    graphs = sg.causal_graph(tiny, ids, **OPTIONS)
    assert [graph.run.tokens[1] for graph in graphs] == ["the", "the"]


def test_what_does_not_go_with_several(tiny: sg.InstrumentedModel, tmp_path: Any) -> None:
    with pytest.raises(SaeGraphsError, match="cannot share one file of effects"):
        sg.causal_graph(tiny, ["the cat"], effects=tmp_path / "effects", **OPTIONS)
    with pytest.raises(SaeGraphsError, match="there is no prompt"):
        sg.causal_graph(tiny, [], **OPTIONS)


# -- token ids -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("select", ["answer", "effect"])
def test_ids_are_the_text(demo: sg.InstrumentedModel, select: str) -> None:
    options: dict[str, Any] = {"select": select}
    ids = demo.tokenize("Copyright (C")
    text = sg.causal_graph(demo, "Copyright (C", **options)
    several: tuple[Any, ...] = ids, list(ids), torch.tensor(ids)
    for given in several:
        graph = sg.causal_graph(demo, given, **options)
        assert numbers(graph) == numbers(text) and graph.tokens == text.tokens


@pytest.mark.slow
def test_ids_that_no_text_gives_are_kept(demo: sg.InstrumentedModel, tmp_path: Any) -> None:
    ids = (*demo.tokenize("Copyright (C")[1:3], 128)  # no BOS, and half a character
    graph = sg.causal_graph(demo, ids, select="effect")
    assert graph.tokens == ("Copyright", " (", "<0xC3>")
    assert graph.prompt == "Copyright (<0xC3>" and graph.run.settings["token_ids"] == list(ids)
    again = CausalGraph.load(graph.save(tmp_path))
    report = sg.validate(demo, again, quick=True, controls=20, paths=1)
    assert report.prompt == graph.prompt
    assert sg.validate(demo, again, controls=20, paths=1, quick=True).units[0].name == "Graph 1"


@pytest.mark.slow
def test_an_answer_graph_of_ids_is_validated(demo: sg.InstrumentedModel) -> None:
    ids = (*demo.tokenize("Copyright (C"), 128)
    graph = sg.causal_graph(demo, ids)
    assert graph.run.settings["token_ids"] == list(ids)
    assert sg.validate(demo, graph, controls=20, paths=1).units


@pytest.mark.slow
def test_text_keeps_no_ids(demo: sg.InstrumentedModel) -> None:
    assert "token_ids" not in sg.causal_graph(demo, "Copyright (C").run.settings


def test_ids_that_do_not_fit(tiny: sg.InstrumentedModel) -> None:
    with pytest.raises(SaeGraphsError, match="token id 99999 is none of"):
        sg.causal_graph(tiny, [1, 99999], **OPTIONS)
    with pytest.raises(SaeGraphsError, match="prepend_bos=True with token ids"):
        sg.causal_graph(tiny, [1, 2, 3], prepend_bos=True, **OPTIONS)


# -- a bar -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_true_is_a_bar(tiny: sg.InstrumentedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []

    class Bar:
        def __enter__(self) -> Any:
            return lambda done, total: seen.append((done, total))

        def __exit__(self, *problem: object) -> None:
            seen.append((-1, -1))

    monkeypatch.setattr(bars, "bar", lambda what: Bar())
    graph = sg.causal_graph(tiny, "the cat sat", progress=True, **OPTIONS)
    assert seen[-1] == (-1, -1) and seen[-2][0] == seen[-2][1] > 0
    for made in (
        lambda: sg.compare_methods(tiny, "the cat sat", select="effect", progress=True),
        lambda: sg.validate(tiny, graph, controls=5, paths=1, quick=True, progress=True),
        lambda: sg.discover(tiny, ["the cat sat", "the cat sat on"], progress=True, top_k=20),
    ):
        seen.clear()
        made()
        assert seen[-1] == (-1, -1) and seen[-2][0] == seen[-2][1] > 0
    assert sg.causal_graph(tiny, "the cat sat", progress=False, **OPTIONS) == graph


def test_progress_that_is_none(tiny: sg.InstrumentedModel) -> None:
    wrong: Any = "yes"
    with pytest.raises(SaeGraphsError, match="progress is 'yes'; expected True for a bar"):
        sg.causal_graph(tiny, "the cat sat", progress=wrong, **OPTIONS)


def test_a_bar_on_a_terminal_and_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    with bars.bar("working") as told:
        told(1, 2)
        told(2, 2)
    assert capsys.readouterr().out == ""


def test_a_new_step_of_a_bar_begins_its_clock_anew() -> None:
    with Progress(console=Console(file=io.StringIO()), disable=True) as shown:
        bar = bars.Bar(bars.on_task(shown, shown.add_task("reading", total=None)), "reading")
        (task,) = shown.tasks
        bar(620, 620)
        assert task.finished
        bar.step("tests [/of] pairs")
        assert task.total is None and not task.finished and task.completed == 0
        assert task.description == "tests [/of] pairs"
        for far in (0, 1):  # as many as the step before
            bar(far, 620)
            assert not task.finished and task.time_remaining != 0
        bar(620, 620)
        assert task.finished
        bar(0, 620)  # another round of the same
        assert not task.finished


@pytest.mark.parametrize("opened", [bars._on_terminal, lambda what, _: console.progress(what)])
def test_what_a_bar_says_is_no_markup(
    opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=120)
    monkeypatch.setattr(console, "err", terminal)
    with opened("over [/x].txt", terminal) as told:
        told(1, 2)
    assert "over [/x].txt" in terminal.file.getvalue()  # type: ignore[attr-defined]


def test_a_bar_in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    display = pytest.importorskip("IPython.display")
    drawn: list[str] = []

    class Handle:
        def update(self, shown: Any) -> None:
            drawn.append(shown.data)

    def displayed(shown: Any, display_id: bool) -> Handle:
        drawn.append(shown.data)
        return Handle()

    monkeypatch.setattr(display, "display", displayed)
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    with bars.bar("working <b>") as told:
        told(1, 2000)
        told(2000, 2000)
    assert "working &lt;b&gt; <progress></progress>" in drawn[0]
    assert 'value="2000" max="2000"' in drawn[-2] and "2,000 of 2,000" in drawn[-2]
    assert drawn[-1] == ""
