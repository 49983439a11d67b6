"""The reproduction script on generated weights: what it measures."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import reproduction_controls
from benchmarks.published import read_published
from benchmarks.reproduction_case import VARIANTS, Case, beside, percent
from benchmarks.reproduction_controls import kept_controls
from benchmarks.reproduction_corpus import corpus
from benchmarks.reproduction_features import formula, hidden_states
from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.validation.controls import Controls, selected
from sae_graphs.validation.mediation import keep_only
from tests.benchmarks.conftest import BARE, OURS, PARTS, QUICK, TEXTS, Measured, published_from
from tests.support.stacks import one_line

# -- the data --------------------------------------------------------------------------------------


def test_the_published_data() -> None:
    published = read_published()
    assert [len(published.ablated_in(figure)) for figure in published.figures] == [19, 28, 30, 25]
    counts = [sum(node.layer == str(layer) for node in published.nodes) for layer in range(1, 11)]
    assert counts == [1, 1, 3, 4, 4, 4, 4, 3, 3, 3]
    for layer, count in enumerate(counts, start=1):  # one feature for each path that passes
        assert count == sum(str(layer) in figure.path_layers for figure in published.figures)
    assert published.figures[1].path_layers[-1] == "10"
    assert published.figures[1].zeroth[-1] == FeatureId("9", 0)  # its controls end below its path
    assert [figure.has_bos for figure in published.figures] == [False, True, True, True]
    assert published.graph["threshold"] == 32.0
    assert published.figures[0].zeroth[0] == FeatureId("3", 0)
    assert FeatureId("5", 10603) in published.nodes
    assert dict(published.figures[3].down)["DI"] == -80.7
    assert dict(published.figures[0].up)["\n"] == 1.4
    assert all(isinstance(token, str) for token, _ in published.graph["top"])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"figures": [{}]}', '{"figures": 3}'])
def test_damaged_data(tmp_path: Path, text: str) -> None:
    file = tmp_path / "data.json"
    for write in (lambda: file.write_text(text), file.unlink):
        write()
        with pytest.raises(SaeGraphsError, match=r"data\.json") as caught:
            read_published(file)
        one_line(caught)


# -- what is measured ------------------------------------------------------------------------------


@pytest.mark.slow
def test_without_bos_the_clean_distribution_is_the_plain_models(
    model: InstrumentedModel, measured: Measured
) -> None:
    prompt = measured.data["graph"]["prompt"]
    ids = torch.tensor([model.tokenize(prompt, prepend_bos=False)])
    expected = 100 * model.model.original_model(ids).logits[0, -1].double().softmax(-1)
    for token, _, ours in measured.found[BARE]["clean"][0]["rows"]:
        (found,) = model.tokenizer(token, add_special_tokens=False)["input_ids"]
        assert ours == pytest.approx(float(expected[found]), abs=1e-3)
    assert (
        measured.found[OURS]["clean"][0]["tokens"][1:]
        == (measured.found[BARE]["clean"][0]["tokens"])
    )


@pytest.mark.slow
def test_the_ablation_is_that_of_validation(model: InstrumentedModel, measured: Measured) -> None:
    """A figure's features, ablated by plain hooks in a full pass."""
    data = measured.data["figures"][0]
    tokens = torch.tensor([model.tokenize(data["prompt"])])

    def hook(feature: FeatureId) -> tuple[str, Any]:
        layer = model.stack.layers[model.stack.depths[feature.layer]]

        def ablate(stream: torch.Tensor, hook: Any) -> torch.Tensor:
            before = layer.encode(stream[0])
            after = before.clone()
            after[1:, feature.index] = 0
            return stream - (layer.decode(before, stream[0]) - layer.decode(after, stream[0]))

        return layer.point.hook_name, ablate

    hooks = [hook(FeatureId.parse(node)) for node in data["nodes"]]
    with torch.no_grad():
        ablated = percent(model.model.run_with_hooks(tokens, fwd_hooks=hooks)[0, -1])
        clean = percent(model.model(tokens)[0, -1])
    rows = measured.found[OURS]["ablations"][0]["rows"]
    expected = beside(model, tuple((row[0], row[1]) for row in rows), ablated - clean)
    assert [row[2] for row in rows] == pytest.approx([row[2] for row in expected], abs=1e-3)
    assert max(abs(row[2]) for row in rows) > 1e-3


@pytest.mark.slow
def test_the_formula_is_the_sources(model: InstrumentedModel, measured: Measured) -> None:
    prompt = measured.data["graph"]["prompt"]
    ids = model.tokenize(prompt, prepend_bos=False)
    with torch.no_grad():
        hidden = hidden_states(model, ids)
    clean = model.clean_run(prompt, prepend_bos=False)
    for row in measured.found["activations"]["rows"]:
        feature = FeatureId.parse(row["feature"])
        layer = model.stack.layers[model.stack.depths[feature.layer]]
        centred = hidden[int(feature.layer)] - hidden[int(feature.layer)].mean(-1, keepdim=True)
        stream = clean.streams[model.stack.depths[feature.layer]]
        assert torch.allclose(centred, stream, atol=1e-3)  # the raw stream, before it is centred
        by_hand = (hidden[int(feature.layer)] @ layer.sae.W_enc + layer.sae.b_enc).relu()
        assert row["formula"] == pytest.approx(by_hand[:, feature.index].tolist(), abs=1e-4)
        assert row["ours"] == pytest.approx(
            layer.encode(stream)[:, feature.index].tolist(), abs=1e-3
        )
        assert len(row["ours_bos"]) == len(row["ours"]) == len(ids)
    assert formula(model, FeatureId("11", 1), hidden, later=1) is None  # after the final norm


def test_features_that_do_not_exist_are_said(tiny: InstrumentedModel) -> None:
    case = Case(tiny, read_published(), VARIANTS[0], QUICK, lambda: TEXTS)
    assert case.known(case.published.nodes) == []
    last = FeatureId("3", tiny.stack.layers[3].n_features - 1)
    assert case.known([last, FeatureId("3", last.index + 1), FeatureId("99", 1)]) == [last]


@pytest.mark.slow
def test_controls_are_as_many_as_asked_and_move_the_stream(measured: Measured) -> None:
    """Where a path acts, so do its controls; a path with no active feature has none."""
    seen = 0
    for name in (OURS, BARE):
        for case in measured.found[name]["ablations"]:
            for control in case["controls"].values():
                assert (control["refused"] is None) == bool(control["changes"])
                for changes in control["changes"]:
                    assert len(changes) == len(case["rows"])
                moved = {tuple(changes) for changes in control["changes"]}
                assert len(moved) > 1 or not moved
                seen += len(moved)
            kept = case["keep_only"]
            assert set(kept["nats"]) == set(PARTS)
            assert len(kept["others"]["nats"]) in (0, QUICK.fewer_controls)
    assert seen


@pytest.mark.slow
def test_sets_of_one_own_path_are_kept_as_the_path_is(
    model: InstrumentedModel, measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path given for its own control: the same metric as keeping it alone."""
    case = Case(model, measured.published, VARIANTS[1], QUICK, lambda: TEXTS)
    figure = measured.published.figures[0]
    features = measured.published.ablated_in(figure)
    here = case.subject(figure.prompt)
    members = here.members(features)
    sets = selected(model, here.ablated, [members] * 2)
    own = Controls(sets, 2)
    monkeypatch.setattr(reproduction_controls, "matched", lambda *given: own)
    moved = torch.ones(len(model.stack.layers), len(here.clean))
    expected = keep_only(here, features, lambda n: None)
    for errors, kept in ((True, expected.kept), (False, expected.kept_bare)):
        found, refused = kept_controls(here, members, moved, QUICK, errors=errors)
        assert refused is None
        assert found == pytest.approx([kept.metric] * 2, abs=1e-5)


@pytest.mark.slow
def test_other_text_is_signed(model: InstrumentedModel, measured: Measured, tmp_path: Path) -> None:
    """With the figure's signs turned, so is what was found."""
    data = copy.deepcopy(measured.data)
    for number, figure in enumerate(data["figures"]):
        for name in ("up", "down"):
            sign = 1.0 if name == "up" else -1.0
            figure[name] = [[token, sign] for token, _ in figure[name]]
        if number == 1:
            figure["up"], figure["down"] = (
                [[token, -value] for token, value in figure[name]] for name in ("down", "up")
            )
    published = published_from(data, tmp_path)
    case = Case(model, published, VARIANTS[0], QUICK, lambda: TEXTS)
    one, turned = corpus(case)
    assert one["active_in"] and one["signed"]["mean"]
    assert one["signed"]["mean"] == pytest.approx(-turned["signed"]["mean"])
    assert one["snippets"] == QUICK.snippets
