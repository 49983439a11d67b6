"""`sg.ablate`: features set to something, against plain hooks on the full model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import sae_graphs as sg
from sae_graphs.effects.ablate import changed_logits
from sae_graphs.effects.changes import parse_changes
from sae_graphs.errors import SaeGraphsError
from sae_graphs.model.clean_run import CleanRun
from tests.conftest import BridgeOf
from tests.support.against_oracle import Case, case_of, kinds_for
from tests.support.commands import Commands
from tests.support.joint_oracle import JointOracle
from tests.support.linear_model import linear_model
from tests.support.models import ARCHITECTURES


@pytest.fixture(scope="module")
def demo() -> sg.InstrumentedModel:
    return sg.load("demo")


# -- the numbers -----------------------------------------------------------------------------------


def run_of(case: Case) -> CleanRun:
    return case.model.run_tokens(case.oracle.ids[0].tolist())


def changes_of(case: Case, clean: CleanRun) -> dict[str, float | str]:
    """Active features of each layer, set, scaled, and set at a token; and a silent one woken."""
    found: dict[str, float | str] = {}
    for layer, acts in zip(case.model.stack.layers, clean.activations, strict=True):
        dense = acts.dense()[1:]
        order = dense.abs().amax(0).argsort(descending=True).tolist()
        last = len(clean) - 1
        found |= {
            f"{layer.label}.{order[0]}": 0,
            f"{layer.label}.{order[1]}": "x0.5",
            f"{layer.label}.{order[2]}": "x2",
            f"{layer.label}.{order[2]}@{last - 1}": 0.25,
            f"{layer.label}.{order[-1]}@{last}": 0.5,
        }
    return found


def oracle_logits(case: Case, changes: dict[str, float | str]) -> Tensor:
    """Every change by a hook that encodes the whole stream, in one full forward pass: `[T, V]`."""
    oracle = JointOracle(case.oracle, 1)
    labels = {layer.label: depth for depth, layer in enumerate(case.model.stack.layers)}
    edits = {}
    for label, layer in labels.items():
        acts = oracle.activations[layer]
        chosen = torch.zeros_like(acts, dtype=torch.bool)
        factor, number = torch.ones_like(acts), torch.zeros_like(acts)
        for name, value in sorted(changes.items(), key=lambda item: "@" in item[0]):
            feature = sg.FeatureId.parse(name)
            if feature.layer != label:
                continue
            at = slice(1, None) if feature.position is None else feature.position
            chosen[:, at, feature.index] = True
            scaled = isinstance(value, str)
            factor[:, at, feature.index] = float(str(value)[1:]) if scaled else 0.0
            number[:, at, feature.index] = 0.0 if scaled else float(value)

        def become(acts: Tensor, factor: Tensor = factor, number: Tensor = number) -> Tensor:
            return acts * factor + number

        edits[layer] = oracle.changed(layer, chosen, become)
    return oracle.run(edits).logits[0]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_plain_hooks_give_the_same_logits(bridge_of: BridgeOf, architecture: str) -> None:
    case = case_of(bridge_of(architecture, "float64"), "pre", kinds_for(architecture), "float64")
    clean = run_of(case)
    changes = changes_of(case, clean)
    for read in (len(clean) - 1, len(clean) - 3):
        known = {
            name: value
            for name, value in changes.items()
            if (sg.FeatureId.parse(name).position or 0) <= read
        }
        expected = oracle_logits(case, known)[read]
        found = changed_logits(case.model, clean, parse_changes(known), read)
        assert (expected - clean.logits[read]).abs().max() > 1e-3
        assert (found - expected).abs().max() < 1e-9


@pytest.mark.parametrize("kind", ["topk", "gated", "layer_norm", "jumprelu"])
def test_kinds_of_saes(bridge_of: BridgeOf, kind: str) -> None:
    case = case_of(bridge_of("llama", "float32"), "post", [kind], "float32")
    clean = run_of(case)
    changes = changes_of(case, clean)
    read = len(clean) - 1
    found = changed_logits(case.model, clean, parse_changes(changes), read)
    assert (found - oracle_logits(case, changes)[read]).abs().max() < 1e-5 * max(
        1.0, float(clean.logits.abs().max())
    )


def test_numbers_that_were_worked_out_by_hand() -> None:
    """Scaling by 1 changes nothing; what is set again to what it is changes nothing."""
    model = linear_model()
    clean = model.clean_run("ab")
    for changes in ({"0.0": "x1"}, {"0.0@1": 1.0, "0.1@1": 2.0}):
        found = sg.ablate(model, "ab", changes)
        assert found.change == 0.0 and found.kl == 0.0
    layer = model.stack.layers[0].label
    set_ = sg.ablate(model, "ab", {f"{layer}.0@2": 0})
    halved = sg.ablate(model, "ab", {f"{layer}.0@2": "x0.5"})
    same = sg.ablate(model, "ab", {f"{layer}.0@2": 1.0})  # it is 2 there
    assert set_.change == pytest.approx(2 * halved.change, abs=2.0)
    assert halved.score_after == pytest.approx(same.score_after)
    logits = clean.logits[-1]
    answer = int(logits.argmax())
    others = [float(it) for number, it in enumerate(logits) if number != answer]
    odds = float(logits[answer]) - math.log(sum(map(math.exp, others)))
    assert halved.score == pytest.approx(odds)


def test_the_record(demo: sg.InstrumentedModel) -> None:
    found = sg.ablate(demo, "Copyright (C", {"3.309": 0, "4.34@2": 2.0, "5.1": "x0.5"})
    assert found.answer == ")" and found.change < -1 and found.kl > 0
    assert found.before[0][0] == ")" == found.after[0][0]
    assert [str(change) for change in found.changes] == ["3.309=0", "4.34@2=2", "5.1=x0.5"]
    table = found.to_pandas()
    assert list(table.columns) == ["token", "token_id", "before", "after"]
    assert len(table) == len(found.next_tokens) >= 8
    assert "<table>" in found._repr_html_() and "log-odds of )" in found._repr_html_()
    assert "log-odds of )" in str(found) and "3.309=0" in repr(found)
    (warning,) = found.warnings
    assert warning.startswith("5.1 is inactive at tokens 1 to 3: x0.5 changes nothing there")
    assert json.loads(json.dumps(found.to_json()))["changes"][0]["feature"] == "3.309"


def test_what_is_asked_for(demo: sg.InstrumentedModel) -> None:
    found = sg.ablate(demo, "Copyright (C", {"3.309": 0}, target="]", contrast=")")
    assert (found.answer, found.contrast) == ("]", ")") and found.score < 0
    assert "logit difference of ] - )" in str(found)
    mean = sg.ablate(demo, "Copyright (C", {"3.309": "mean"})
    zero = sg.ablate(demo, "Copyright (C", {"3.309": 0})
    assert mean.change < 0 and mean.change != zero.change
    ids = demo.tokenize("Copyright (C")
    assert sg.ablate(demo, ids, {"3.309": 0}).score_after == zero.score_after


def test_a_token_goes_before_all_tokens(demo: sg.InstrumentedModel) -> None:
    both = sg.ablate(demo, "Copyright (C", {"3.309@3": "x1", "3.309": 0})
    turned = sg.ablate(demo, "Copyright (C", {"3.309": 0, "3.309@3": "x1"})
    alone = sg.ablate(demo, "Copyright (C", {"3.309@1": 0, "3.309@2": 0})
    assert both.score_after == turned.score_after == alone.score_after


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "no feature is given"),
        ({"9.1": 0}, "no SAE layer '9'"),
        ({"3.99999": 0}, "layer 3 has features 0 to"),
        ({"309": 0}, "not a feature: '309'"),
        ({3.309: 0}, "not a feature: 3.309"),
        ({"out.3": 0}, "is no feature of an SAE"),
        ({"answer": 0}, "is no feature of an SAE"),
        ({"3.309@9": 0}, "the prompt has tokens 0 to 3"),
        ({"3.309": "half"}, "3.309 cannot become 'half'; expected a number"),
        ({"3.309": float("nan")}, "3.309 cannot become nan"),
        ({"3.309": None}, "3.309 cannot become None"),
        ({"3.309": True}, "3.309 cannot become True"),
        ({"3.309": "x"}, "3.309 cannot become 'x'"),
        ({"3.309": 0, sg.FeatureId("3", 309): 1}, "3.309 is given twice"),
        (["3.309"], "the changes are"),
        ({"gpt2-small/5-res-jb/1": 0}, "no SAE layer is gpt2-small/5-res-jb"),
    ],
)
def test_a_mistake_is_one_line(demo: sg.InstrumentedModel, changes: Any, words: str) -> None:
    with pytest.raises(SaeGraphsError, match=words.replace("(", r"\(")) as told:
        sg.ablate(demo, "Copyright (C", changes)
    assert "\n" not in str(told.value)


def test_where_nothing_can_be_changed(demo: sg.InstrumentedModel) -> None:
    with pytest.raises(SaeGraphsError, match="comes after token 1, which is read"):
        sg.ablate(demo, "Copyright (C", {"3.309@3": 0}, read=1)
    with pytest.raises(SaeGraphsError, match=r"the first is read; give more text, or 3\.309@0"):
        sg.ablate(demo, "Copyright (C", {"3.309": 0}, read=0)
    with pytest.raises(SaeGraphsError, match="read position 7 is outside"):
        sg.ablate(demo, "Copyright (C", {"3.309": 0}, read=7)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"target": 276}, "the token is 276; expected its text, such as ' Paris', or its id"),
        ({"read": "a"}, "read is 'a'; expected a whole number"),
        ({"read": 1.0}, "read is 1.0; expected a whole number"),
        ({"read": True}, "read is True; expected a whole number"),
        ({"prepend_bos": "x"}, "prepend_bos is 'x'; expected True or False"),
        ({"progress": True}, "no option 'progress'"),
    ],
)
def test_options_that_are_none_are_one_line(
    demo: sg.InstrumentedModel, options: Any, words: str
) -> None:
    with pytest.raises(SaeGraphsError, match=words):
        sg.ablate(demo, "Copyright (C", {"3.309": 0}, **options)


def test_names_and_blanks(demo: sg.InstrumentedModel) -> None:
    named: Any = "demo"
    assert sg.ablate(named, "   ", {"3.309": 1}) == sg.ablate(demo, "   ", {"3.309": 1})
    exact = sg.ablate(demo, "Copyright (C", {"3.309": 1234567.891})
    assert "3.309=1234567.891" in repr(exact)
    assert exact.to_json()["token_ids"] == list(demo.tokenize("Copyright (C"))


# -- the command -----------------------------------------------------------------------------------


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Commands:
    return Commands(monkeypatch, capsys, tmp_path)


def test_the_command(run: Commands) -> None:
    shown = run("ablate", "Copyright (C", "3.309=0", "4.34@3=2.0", "5.1=x0.5")
    assert shown.code == 0 and "log-odds of )" in shown.out
    assert "3.309=0, 4.34@3=2, 5.1=x0.5" in shown.out
    assert "5.1 is inactive" in shown.err
    printed = json.loads(run("ablate", "Copyright (C", "3.309=0", "--format", "json").out)
    assert printed["answer"] == ")" and printed["change"] < 0


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["3.309"], "not a change: '3.309'; expected feature=value"),
        (["=0"], "not a change: '=0'"),
        (["3.309="], "3.309 cannot become ''"),
        (["3.309=0", "3.309=1"], "3.309 is given twice"),
        (["x=0"], "not a feature: 'x'"),
        ([f"3.309={10**400}"], "3.309 cannot become"),
        (["3.309=0", "--target", "no such"], "is 4 tokens of demo"),
    ],
)
def test_a_mistake_on_the_command_line(run: Commands, given: list[str], words: str) -> None:
    shown = run("ablate", "Copyright (C", *given)
    assert shown.code == 2 and words in shown.err and shown.err.startswith("error: ")
