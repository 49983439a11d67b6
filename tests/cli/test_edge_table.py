"""What `sae-graphs edges` and the summary of a run print."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from sae_graphs.cli import app
from sae_graphs.cli.edge_table import print_edges
from sae_graphs.cli.graph_table import print_graph
from sae_graphs.graph.anatomy import BlockShare
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph
from sae_graphs.graph.records import Edge, OutputToken
from tests.support.graphs import anatomy, example, resolved, rich_graph, run_record, with_outputs


def printed(graph: CausalGraph, style: str = "table", **options: Any) -> str:
    console = Console(width=160, record=True, file=io.StringIO())
    print_edges(console, graph, graph.edges, style, **options)
    return console.export_text()


def summary(graph: CausalGraph, width: int = 160, **options: Any) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    print_graph(console, graph, seconds=1.5, **options)
    return console.export_text()


def line_with(text: str, words: str) -> str:
    """The one line that holds these words, its spaces single and its borders gone."""
    (line,) = [line for line in text.splitlines() if words in line]
    return " ".join(line.replace("│", " ").split())


# -- edges -----------------------------------------------------------------------------------------


def test_the_plain_table_names_output_tokens() -> None:
    text = printed(with_outputs())
    assert line_with(text, "out.340") == '3.6 out.340 " )" -1.5 promotes 1'
    assert line_with(text, "out.7") == '3.6 out.7 "↵" - "C" +0.5 suppresses 1'
    assert "of an output token's logit, in nats" in text
    assert "nats" not in printed(example())


def test_positions_show_their_tokens() -> None:
    text = printed(resolved())
    assert line_with(text, "+4") == "1.2@2 ␣( 2.4@2 ␣( +4 suppresses 1"
    assert "0.1@1 Copyright" in text
    assert line_with(text, "+0.25") == "0.1@2 ␣( 1.2@2 ␣( +0.25 suppresses 1"


def test_anatomies_in_a_table() -> None:
    text = printed(with_outputs(), anatomy=True)
    first = line_with(text, "attention 2, head 0")
    assert first == "2.5 3.6 -2 -2 -1 50% -0.75 38% -0.25 12% attention 2, head 0"
    assert line_with(text, "mlp 3") == '3.6 out.340 " )" -1.5 -1.5 -2 133% 0 +0.5 -33% mlp 3'
    assert "no anatomy from layer 3: it was not measured" in text
    last = text[text.index("erased by") :]
    assert line_with(last, "2.5") == "2.5 attention 3 (62%), embedding (25%) mlp 5 (38%)"
    assert "out.340" not in last


def test_one_block_without_heads_needs_no_column_for_the_strongest() -> None:
    edges = [Edge(FeatureId("0", 1), FeatureId("1", 2), -1.0, anatomy(-0.5, (0, -0.5, 0.0)))]
    assert "block" not in printed(rich_graph(edges, run_record()), anatomy=True).splitlines()[1]
    two = [replace(edges[0], anatomy=anatomy(-0.5, (0, -0.5, 0.0), (1, 0.0, 0.75)))]
    text = printed(rich_graph(two, run_record()), anatomy=True)
    assert "strongest block" in text and "mlp 1" in text


def test_an_edge_that_came_by_the_skip_connection_has_no_strongest_block() -> None:
    ways = anatomy(-5.0, (0, -0.125, 0.0, (-0.125, 0.0)), (1, 0.0, 0.125))
    edges = [Edge(FeatureId("0", 1), FeatureId("1", 2), -1.0, ways)]
    text = printed(rich_graph(edges, run_record(), written_by=(), scrubbed_by=()), anatomy=True)
    assert "strongest block" in text and "mlp 1" not in text
    assert line_with(text, "0.1 ").startswith("0.1 1.2 -1 -5 -5 100%")


def test_parts_that_cancel_have_no_shares() -> None:
    edges = [Edge(FeatureId("0", 1), FeatureId("1", 2), -1.0, anatomy(-5.0, (0, 5.0, 0.125)))]
    text = printed(rich_graph(edges, run_record(), written_by=(), scrubbed_by=()), anatomy=True)
    assert line_with(text, "0.1") == "0.1 1.2 -1 +0.125 -5 +5 +0.125"


def test_why_there_is_no_anatomy() -> None:
    graph = example()
    layers = tuple(
        replace(layer, no_anatomy="a gated\nencoder" if layer.label != "2" else None)
        for layer in graph.run.layers
    )
    text = printed(replace(graph, run=replace(graph.run, layers=layers)), anatomy=True)
    assert line_with(text, "gated") == "no anatomy from layers 0, 1: a gated↵encoder"
    assert line_with(text, "no anatomy from layer 2") == (
        "no anatomy from layer 2: it was not measured"
    )
    assert "the source" in text  # the plain table follows
    assert "written by" not in text


def test_json_has_every_number() -> None:
    rows = json.loads(printed(with_outputs(), "json", anatomy=True))
    assert rows[0] == {
        "source": "2.5",
        "target": "3.6",
        "target_token": None,
        "effect": -2.0,
        "component": 1,
        "source_explanation": None,
        "target_explanation": None,
        "skip": -1.0,
        "attention": -0.75,
        "mlp": -0.25,
        "preactivation_effect": -2.0,
        "blocks": [{"block": 2, "attention": -0.75, "mlp": -0.25, "heads": [-1.0, 0.25]}],
    }
    assert rows[1]["target_token"] == " )"
    assert (rows[2]["skip"], rows[2]["blocks"]) == (None, None)
    plain = json.loads(printed(with_outputs(), "json"))
    assert list(plain[0]) == [
        *("source", "target", "target_token", "effect", "component"),
        *("source_explanation", "target_explanation"),
    ]


def test_csv_has_every_number() -> None:
    rows = list(csv.DictReader(io.StringIO(printed(with_outputs(), "csv", anatomy=True))))
    assert list(rows[0]) == [
        *("source", "target", "target_token", "effect", "component"),
        *("source_explanation", "target_explanation"),
        *("skip", "attention", "mlp", "preactivation_effect"),
        *("attention_2", "attention_2_head_0", "attention_2_head_1", "mlp_2"),
        *("attention_3", "mlp_3"),
    ]
    assert rows[0]["attention_2_head_1"] == "0.25"
    assert rows[0]["mlp_3"] == ""
    assert rows[1]["mlp_3"] == "0.5"
    assert (rows[2]["target_token"], rows[2]["skip"]) == ("↵", "")


@pytest.mark.parametrize("style", ["table", "csv", "json"])
@pytest.mark.parametrize("with_anatomy", [False, True])
def test_no_edges(style: str, with_anatomy: bool) -> None:
    graph = rich_graph([], run_record())
    assert "Traceback" not in printed(graph, style, anatomy=with_anatomy)


HOSTILE = "\x1b[31m\u202e\n[red]\ud83d"


@pytest.mark.parametrize("style", ["table", "csv", "json"])
def test_hostile_tokens_reach_no_terminal(style: str) -> None:
    run = run_record(
        tokens=("<bos>", HOSTILE, " (", "C"), outputs=(OutputToken(3, HOSTILE, 1.0, 0.5, HOSTILE),)
    )
    edges = [Edge(FeatureId("3", 6, 1), FeatureId("out", 3, 3), -2.0, anatomy(-2.0))]
    graph = rich_graph(edges, run)
    text = printed(graph, style, anatomy=True) + (summary(graph) if style == "table" else "")
    assert not {"\x1b", "\u202e", "\ud83d"} & set(text)
    assert "[red]" in text.replace("\n", "")


def test_negative_shares_keep_their_sign_on_every_terminal() -> None:
    edges = [Edge(FeatureId("0", 1), FeatureId("1", 2), -1.0)]
    graph = rich_graph(edges, run_record(), scrubbed_by=(BlockShare("mlp", 2, -0.25),))
    assert "mlp 2 (-25%)" in printed(graph, anatomy=True)


def test_the_command(tmp_path: Path) -> None:
    with_outputs().save(tmp_path)
    asked = ["edges", str(tmp_path), "--target", "out.340", "--anatomy"]
    answer = CliRunner().invoke(app, [*asked, "--format", "json"])
    assert answer.exit_code == 0, answer.output
    (row,) = json.loads(answer.stdout)
    assert (row["skip"], row["mlp"], row["target_token"]) == (-2.0, 0.5, " )")
    assert "out.340" in CliRunner().invoke(app, asked).stdout


# -- the summary of a run --------------------------------------------------------------------------


def test_the_summary_tells_of_outputs() -> None:
    text = summary(with_outputs())
    assert line_with(text, "promotes it") == "out.340 ␣) 75% logit 12.5 -1.5 nats, 3.6 promotes it"
    assert line_with(text, "difference") == (
        "out.7 ↵ - C 12% logit difference 9 +0.5 nats, 3.6 suppresses it"
    )
    assert "2 features and 2 output tokens, 3 edges" in text
    assert 'which promotes out.340 " )" (-1.5)' in text
    assert "none kept" in summary(resolved())
    assert "output tokens" not in summary(example())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"ablate": "all"}, "left out: ablation at the first position (<bos>), the attention sink"),
        ({"ablate": "each"}, "left out: ablation at the first position (<bos>)"),
        ({"ablate": "all", "ablate_first": True}, "left out: nothing"),
        ({"ablate": "each", "ablate_first": True}, "left out: nothing"),
        ({"ablate": "read"}, "left out: nothing"),
    ],
)
def test_what_was_left_out(settings: dict[str, Any], words: str) -> None:
    assert words in summary(rich_graph([], run_record(settings=settings)))


def test_the_summary_of_a_graph_with_positions() -> None:
    text = summary(resolved())
    assert "features, each at one position, measured" in text
    assert "0.1@1 promotes 1.2@3 (-1), which promotes 2.4@3 (-3)" in text


@pytest.mark.parametrize(
    ("method", "again", "words"),
    [
        ("exact", False, "15 features measured in 1.50 s; left out"),
        ("gradient", False, "15 features estimated in 1.50 s; left out"),
        ("exact", True, "drawn again in 1.50 s; 15 features were measured by the earlier run"),
        ("integrated-gradients", True, "15 features were estimated by the earlier run; left out"),
    ],
)
def test_what_was_measured_and_what_estimated(method: str, again: bool, words: str) -> None:
    run = run_record(settings={"ablate": "all", "method": method})
    layers = (*(replace(layer, measured_features=5) for layer in run.layers[:-1]), run.layers[-1])
    assert words in summary(rich_graph([], replace(run, layers=layers)), again=again)


@pytest.mark.parametrize("width", [50, 60, 79, 80, 160])
def test_no_number_of_the_layers_is_cut(width: int) -> None:
    run = run_record()
    layers = tuple(
        replace(layer, active_features=12345, l0=678.9, fvu=0.995, total_abs_effect=1.234e15)
        for layer in run.layers
    )
    text = summary(rich_graph([], replace(run, layers=layers)), width)
    assert "…" not in text[text.index("SAE layers") :]
    for number in ("12345", "678.9", "99.5%", "1.234e+15", "0%", "90%"):
        assert text.count(f" {number}") >= len(layers) - 1, number
    assert ("hook" in text) == (width >= 80)
    assert all(word in text for word in ("active", "drawn", "features")) or width < 60
