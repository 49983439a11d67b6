"""What `--intervention` and `intervention=` understand, and what they say to a mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from sae_graphs.effects.comparison import compare_methods
from sae_graphs.effects.intervention_kinds import InterventionKind, parse_intervention
from sae_graphs.errors import SaeGraphsError
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.interventions import Intervention, resample, scale
from tests.support.commands import Commands
from tests.support.effect_graphs import EFFECT, effect_graph
from tests.support.linear_model import linear_model
from tests.support.slow import first
from tests.support.stacks import one_line


@pytest.fixture(scope="module")
def model() -> InstrumentedModel:
    return linear_model()


def edges(model: InstrumentedModel, intervention: Intervention | str) -> tuple[object, ...]:
    return effect_graph(model, "ab", intervention=intervention, min_path_edges=1).edges


@pytest.fixture
def other(tmp_path: Path) -> Path:
    file = tmp_path / "other prompt.txt"
    file.write_bytes(b"\xef\xbb\xbfba\r\n")
    return file


def test_what_is_understood(other: Path) -> None:
    assert parse_intervention("zero") == InterventionKind("zero")
    assert parse_intervention(" mean ") == InterventionKind("mean")
    assert parse_intervention("scale:-2e-1") == InterventionKind("scale", coefficient=-0.2)
    assert parse_intervention(f"resample:{other}") == InterventionKind("resample", prompt="ba")


MISTAKES = (
    *("", "Mean", "zero:1", "mean:3", "scale", "scale:", "scale:half", "scale:nan", "scale:inf"),
    *("resample", "resample:", "resample:no such file", "resample:.", "none"),
)


@pytest.mark.parametrize("text", MISTAKES)
def test_mistakes_are_told_in_one_line(text: str) -> None:
    with pytest.raises(SaeGraphsError) as caught:
        parse_intervention(text)
    line = one_line(caught)
    assert "expected" in line or "give a UTF-8 text file" in line


def test_a_file_without_a_prompt(tmp_path: Path) -> None:
    for data, said in ((b" \n", "holds no prompt"), (b"\xff\xfe\x00", "cannot read the prompt")):
        (tmp_path / "file").write_bytes(data)
        with pytest.raises(SaeGraphsError, match=said):
            parse_intervention(f"resample:{tmp_path / 'file'}")


def test_by_name_as_by_object(model: InstrumentedModel, other: Path) -> None:
    assert edges(model, "zero") == edges(model, "scale:0") != edges(model, "scale:0.5")
    assert edges(model, "scale:0.5") == edges(model, scale(0.5))
    resampled = resample(model, "ba", n_tokens=3)
    assert edges(model, f"resample:{other}") == edges(model, resampled)
    record = effect_graph(model, "ab", intervention="scale:0.5").run
    assert record.settings["intervention"] == "scale 0.5"
    found = compare_methods(
        model, "ab", select="effect", intervention="scale:0.5", methods=["gradient"]
    )
    assert found.settings["intervention"] == "scale 0.5"


def test_another_prompt_of_another_length(model: InstrumentedModel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("bab")
    with pytest.raises(SaeGraphsError, match="has 4 tokens, this one 3") as caught:
        edges(model, f"resample:{tmp_path / 'file'}")
    one_line(caught)


# -- on the command line ---------------------------------------------------------------------------


@pytest.fixture
def commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Commands:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Commands(monkeypatch, capsys, tmp_path)


@pytest.mark.parametrize("text", first(2, ["scale:half", "resample:nowhere.txt", "median"]))
def test_a_mistake_on_the_command_line(commands: Commands, text: str, tmp_path: Path) -> None:
    answer = commands("graph", "Copyright (C", *EFFECT, "--intervention", text)
    assert answer.code == 2 and not answer.out
    assert len(answer.err.strip().splitlines()) == 1
    assert not (tmp_path / "outputs").exists()


def test_not_with_saved_effects(commands: Commands) -> None:
    answer = commands("graph", "--from", "outputs/kept", "--intervention", "mean")
    assert answer.code == 2
    assert "--intervention" in answer.err


@pytest.mark.slow
def test_mean_on_the_bundled_model(commands: Commands, tmp_path: Path) -> None:
    answer = commands(
        "graph", "Copyright (C", *EFFECT, "--intervention", "mean", "--formats", "html"
    )
    assert answer.code == 0, answer.err
    assert "no reference means" not in answer.err  # the bundled SAEs have theirs
    kept = (tmp_path / "outputs" / "copyright-c" / "graph.json").read_text()
    assert '"intervention": "mean (of ' in kept
