"""Names of series, settings, and `granger.json`: there and back, and what is refused."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from sae_graphs.cli.granger_table import print_granger
from sae_graphs.editing.granger.pairs import with_q
from sae_graphs.editing.granger.records import (
    FILE_NAME,
    KINDS,
    GrangerReport,
    GrangerTest,
    Pair,
    Series,
    SeriesName,
)
from sae_graphs.editing.granger.report import granger_files, granger_html
from sae_graphs.editing.granger.sentences import lag_words
from sae_graphs.editing.granger.settings import GrangerSettings
from sae_graphs.errors import GraphFileError, SaeGraphsError
from sae_graphs.graph.feature_id import FeatureId
from tests.support.stacks import one_line

HOSTILE = '<script>alert("x")</script> $x_1$ [b] \x1b[31m'


def report(*, criteria: tuple[float, ...] = (7.0, 5.0, 6.5), about: str = HOSTILE) -> GrangerReport:
    """Every verdict once, and a text that must not act."""

    def test(share: float, p: float) -> GrangerTest:
        return GrangerTest(9.0 * share, share, 4.0, p, p / 2, p, (0, 1), (share, -0.01))

    pairs = with_q(
        [
            Pair("2.1", "3.1", test(0.3, 0.001), test(0.01, 0.7)),
            Pair("2.1", "norm:3", test(0.2, 0.8), test(0.2, 0.001)),
            Pair("2.1", "3.2", test(0.1, 0.002), test(0.1, 0.003)),
            Pair("2.1", "3.3", test(0.001, 0.9), test(0.0, 1.0)),
            Pair("2.1", "3.4", reason="3.4 is on at 2 tokens of 1 text, too rarely to be tested"),
        ]
    )
    names = dict.fromkeys(name for pair in pairs for name in (pair.source, pair.target))
    return GrangerReport(
        settings=GrangerSettings(given=("norm:2",)),
        model="tiny",
        saes="custom",
        about=about,
        texts="texts.txt",
        n_texts=40,
        n_tokens=900,
        lag=2,
        criteria=criteria,
        series=tuple(Series(name, 100, 30, HOSTILE) for name in names),
        pairs=tuple(pairs),
        warnings=("1 text too short",),
        made={"seconds": 1.5},
    )


def test_a_report_there_and_back(tmp_path: Path) -> None:
    made = report()
    file = made.save(tmp_path)
    assert file.name == FILE_NAME and GrangerReport.load(tmp_path) == made
    assert GrangerReport.load(file) == made
    assert list(made.counts.values()) == [1, 1, 1, 1, 1]
    assert made.pair("2.1", "3.4").verdict(0.05) == "untestable"
    table = made.to_pandas()
    assert table["verdict"].tolist() == ["forward", "backward", "both", "none", "untestable"]
    with pytest.raises(SaeGraphsError, match="were not tested as a pair"):
        made.pair("3.1", "2.1")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"schema": "sae_graphs.trace/1"}, "schema is"),
        ({"lag": 9}, "the lag is 9, and there are 3 criteria"),
        ({"lag": "two"}, "expected a whole number"),
        ({"series": []}, "which are no series here"),
        ({"pairs": [{"source": "2.1"}]}, "is missing"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    file = report().save(tmp_path)
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(SaeGraphsError, match=told) as caught:
        GrangerReport.load(tmp_path)
    one_line(caught)


def test_no_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(GraphFileError, match="give a folder that Granger tests"):
        GrangerReport.load(tmp_path)


def hostile() -> GrangerReport:
    """Wherever a report holds a text of others."""
    made = report()
    return replace(
        made,
        settings=replace(made.settings, given=(f"norm:{HOSTILE}",)),
        pairs=(*made.pairs, Pair("2.1", "3.4", made.pairs[0].forward, None, "", HOSTILE)),
        model=HOSTILE,
        saes=HOSTILE,
        texts=HOSTILE,
        warnings=(HOSTILE,),
    )


def test_the_terminal_obeys_no_text() -> None:
    shown = io.StringIO()
    console = Console(file=shown, width=140, force_terminal=True, color_system=None)
    print_granger(console, hostile(), seconds=1.0)
    assert "\x1b[31m" not in shown.getvalue() and "[b]" in shown.getvalue()


def test_the_terminal_says_why_a_pair_could_not_be_tested() -> None:
    made = report()
    more = [Pair("3.1", "3.2", reason=f"why {n}", reason_back=f"why {n}") for n in range(4)]
    more.append(Pair("3.1", "3.3", made.pairs[0].forward, None, "", "why 0"))
    shown = io.StringIO()
    console = Console(file=shown, width=140)
    print_granger(console, replace(made, pairs=(*made.pairs, *more)), seconds=1.0)
    told = [it.strip() for it in shown.getvalue().splitlines() if "not tested: " in it]
    rarely = "not tested: 2.1 to 3.4: 3.4 is on at 2 tokens of 1 text, too rarely to be tested"
    assert told == [rarely, "not tested: 3.1 to 3.2: why 0", "not tested: 3.1 to 3.2: why 1"]
    assert "and 2 more reasons, in granger.json" in shown.getvalue()


def test_degenerate_lags_are_not_said_to_be_given() -> None:
    made = replace(report(criteria=()), lag=1)
    assert lag_words(made) == "the lag, 1: no pair tells another"
    given = replace(made, settings=replace(made.settings, lag=1))
    assert lag_words(given) == "the lag, 1, was given"
    assert "linear autoregressions of each pair alone" in lag_words(report())


def test_pages_escape_and_say_no_more_than_prediction() -> None:
    files = granger_files(hostile(), ("png", "svg", "html", "md"))
    assert set(files) == {
        *("granger.png", "granger.svg", "granger-lag.png", "granger-lag.svg"),
        *("granger.html", "granger.md"),
    }
    assert files["granger.png"].startswith(b"\x89PNG")
    shown = {name: data.decode() for name, data in files.items() if not name.endswith(".png")}
    shown["notebook"] = granger_html(hostile())
    for name, text in shown.items():
        assert "<script>alert" not in text and "\x1b" not in text, name
        assert "caus" not in text.lower(), name
    for words in ("source to target", "target to source", "both", "none", "untestable"):
        assert words in shown["granger.html"]
    assert granger_files(report(), ("json",)) == {}
    assert "granger-lag.svg" not in granger_files(report(criteria=()), ("svg",))


# -- names and settings ----------------------------------------------------------------------------

features = st.builds(FeatureId, st.sampled_from(["0", "12", "e"]), st.integers(0, 99_999))


@given(features, st.sampled_from(["feature", "projection", "attended"]))
def test_names_there_and_back(feature: FeatureId, kind: Any) -> None:
    name = SeriesName(kind, feature.layer, feature.index)
    assert SeriesName.parse(str(name)) == name == SeriesName.parse(name)
    assert SeriesName.parse(str(SeriesName("norm", feature.layer))).kind == "norm"
    assert kind in KINDS


@pytest.mark.parametrize("text", ["", "2", "energy:2.1", "2.1@3", "answer", "token@2", "norm:"])
def test_what_is_no_name_is_one_line(text: str) -> None:
    with pytest.raises(SaeGraphsError, match=r"not a (series|feature)") as caught:
        SeriesName.parse(text)
    one_line(caught)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("features", 0), ("lag", 0), ("max_lag", 0), ("permutations", 5), ("level", 1.0)),
        *(("least_on", 0), ("length", 3), ("together", 1), ("seed", -1), ("test", "cubic")),
        *(("detrend", "none"), ("features", True), ("lag", 1.5)),
    ],
)
def test_what_is_no_setting_is_one_line(option: str, value: Any) -> None:
    with pytest.raises(SaeGraphsError, match=f"{option} is .*expected") as caught:
        GrangerSettings(**{option: value})
    one_line(caught)
