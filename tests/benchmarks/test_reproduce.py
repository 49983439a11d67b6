"""The reproduction script on generated weights: what it measures, and verdicts that can fail."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

import sae_graphs as sg
from benchmarks import reproduction_verdicts as verdicts
from benchmarks.published import FILE, Published, read_published
from benchmarks.reproduce_gpt2_small import main
from benchmarks.reproduction import measure
from benchmarks.reproduction_case import VARIANTS, Case, beside, percent
from benchmarks.reproduction_features import formula, hidden_states
from benchmarks.reproduction_tables import parts, reproduces
from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph import FeatureId
from sae_graphs.instrument import InstrumentedModel
from sae_graphs.validation_settings import ValidationSettings
from tests.hub_cache import build, cache_in_use
from tests.stacks import one_line

OURS, BARE = (variant.name for variant in VARIANTS)
QUICK = ValidationSettings(controls=9, other_controls=3, snippets=3)
LAYERS = ("3", "4", "5")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with a narrow GPT-2 small and its release."""
    home = tmp_path_factory.mktemp("home")
    build(home, "gpt2-small")
    return home


@pytest.fixture(scope="module")
def model(home: Path) -> Iterator[InstrumentedModel]:
    with cache_in_use(home, "gpt2-small"):
        yield sg.load("gpt2-small")


def active(model: InstrumentedModel, prompt: str, layers: tuple[str, ...]) -> list[str]:
    """One feature of each layer that is active at the last token, not feature 0."""
    clean = model.clean_run(prompt, prepend_bos=False)
    found = []
    for layer in layers:
        acts = clean.activations[model.stack.depths[layer]]
        at_end = torch.arange(len(clean)) == len(clean) - 1
        found.append(f"{layer}.{next(i for i in acts.active(at_end).tolist() if i)}")
    return found


def top_of(model: InstrumentedModel, prompt: str) -> list[list[Any]]:
    """The next tokens without BOS that are tokens by their text alone."""
    points = percent(model.clean_run(prompt, prepend_bos=False).logits[-1])
    names = [model.token_string(i) for i in points.topk(40).indices.tolist()]
    rows = beside(model, tuple((name, 0.0) for name in names), points)
    return [[name, ours] for name, _, ours in rows if ours is not None][:8]


def stand_in(model: InstrumentedModel) -> dict[str, Any]:
    """Published data of the form of the real ones, whose features this model has."""
    prompt = "the cat sat on the (old mat"
    data = json.loads(FILE.read_text())
    nodes = active(model, prompt, LAYERS)
    top = top_of(model, prompt)
    changes = [[token, 0.0] for token, _ in top]
    one = {
        "name": "known",
        "prompt": prompt,
        "path_layers": list(LAYERS),
        "control_layers": list(LAYERS),
        "nodes": nodes,
        "top": top,
        "up": changes[:4],
        "down": changes[4:],
        "control_up": changes[:2],
        "control_down": changes[2:4],
        "control_tokens_lost_their_space": False,
    }
    data["figures"] = [one, {**one, "name": "union", "nodes": None}]
    data["nodes"] = nodes
    data["graph"].update(prompt=prompt, top=top, features=nodes)
    effect = active(model, prompt, ("8",))[0]
    data["weighted"] = {"features": [effect], "up_in": "known", "down_in": "union"}
    data["sweep"].update(prompt=prompt, cause=nodes[0], effect=nodes[1])
    data["edges"] = {"red": [[nodes[0], nodes[1]]], "blue": [[nodes[1], nodes[2]]]}
    data["promotes"] = {nodes[0]: ["no", "such", "tokens"]}
    tokens = len(model.tokenize(prompt, prepend_bos=False))
    values = {node: [1.0] * tokens for node in nodes}
    data["activations"] = {"prompt": prompt, "formula": "", "values": values}
    return data


def published_from(data: dict[str, Any], folder: Path) -> Published:
    file = folder / "published.json"
    file.write_text(json.dumps(data))
    return read_published(file)


TEXTS = ["the cat sat on the mat and the dog ran to the old red house " * 20]


class Measured:
    """A stand-in, what was found beside it, and the same with our numbers as the published."""

    def __init__(self, model: InstrumentedModel, folder: Path) -> None:
        self.data = stand_in(model)
        published = published_from(self.data, folder)
        self.found = measure(model, published, settings=QUICK, texts=lambda: TEXTS)
        self.published = published


@pytest.fixture(scope="module")
def measured(model: InstrumentedModel, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    return Measured(model, tmp_path_factory.mktemp("data"))


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


def test_features_that_do_not_exist_are_said(model: InstrumentedModel) -> None:
    case = Case(model, read_published(), VARIANTS[0], QUICK, lambda: TEXTS)
    assert case.known(case.published.nodes) == []
    last = FeatureId("3", model.stack.layers[3].n_features - 1)
    assert case.known([last, FeatureId("3", last.index + 1), FeatureId("99", 1)]) == [last]


# -- verdicts --------------------------------------------------------------------------------------


def test_the_verdicts_of_our_own_numbers_agree(measured: Measured) -> None:
    """What we find, taken for the published: then all must agree; and not once it is changed."""
    found = copy.deepcopy(measured.found)
    assert verdicts.of_clean(found[BARE]["clean"]).answer == "agrees"
    assert "yes" in reproduces(found)
    found[BARE]["clean"][0]["rows"][0][1] += 0.2
    assert verdicts.of_clean(found[BARE]["clean"]).answer == "differs"
    assert "no (by up to 0.2 points" in reproduces(found)
    one = found[OURS]["ablations"][0]
    for row in one["rows"]:
        row[1] = row[2]
    assert verdicts.of_ablation(one).answer == "agrees"
    one["rows"][0][1] += 1.1
    assert verdicts.of_ablation(one).answer == "differs"
    for row in found["activations"]["rows"]:
        row["published"] = row["formula"]
    assert verdicts.of_activations(found["activations"]).answer == "agrees"
    for row in found["activations"]["rows"]:
        row["published"] = row["formula_late"]
    late = verdicts.of_activations(found["activations"])
    assert late.answer == "agrees" and late.why.startswith("a block late")
    for row in found["activations"]["rows"]:
        row["published"] = [value + 0.1 for value in row["ours"]]
    assert verdicts.of_activations(found["activations"]).answer == "differs"


# -- what is shown ---------------------------------------------------------------------------------


def test_tables_hold_hostile_tokens(measured: Measured) -> None:
    found = copy.deepcopy(measured.found)
    found[BARE]["clean"][0]["rows"][0][0] = found[OURS]["clean"][0]["rows"][0][0] = "[/b]|<b>\n\x1b"
    tables = parts(found, measured.published)
    console = Console(width=120, record=True, file=io.StringIO())
    for table in tables:
        console.print(table.rich())
        rows = [line for line in table.markdown().splitlines() if line.startswith("|")]
        bars = {line.replace("\\|", "").count("|") for line in rows}
        assert bars == ({len(table.heads) + 1} if table.rows else set())
        assert table.expected and table.verdicts
    text = console.export_text()
    assert "[/b]|<b>\\n\\x1b" in text and "\x1b" not in text
    assert tables[0].title == "Clean next tokens"


def test_the_script(home: Path, measured: Measured, tmp_path: Path) -> None:
    import typer

    app = typer.Typer()
    app.command()(main)
    data = tmp_path / "data.json"
    data.write_text(json.dumps(measured.data))
    text = tmp_path / "text.txt"
    text.write_text(TEXTS[0])
    options = ["--data", str(data), "--controls", "5", "--snippets", "2", "--text", str(text)]
    options += ["--json", str(tmp_path / "out.json"), "--markdown", str(tmp_path / "out.md")]
    with cache_in_use(home, "gpt2-small"):
        answer = CliRunner().invoke(app, options, catch_exceptions=False)
    assert answer.exit_code == 0
    assert answer.stdout.startswith("reproduces the published clean distribution: yes (within 0.1")
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["schema"] == "sae_graphs/reproduction/1"
    assert record["found"][OURS]["clean"] == measured.found[OURS]["clean"]
    answers = {
        verdict["answer"] for table in record["tables"] for verdict in table["verdicts"].values()
    }
    assert {"agrees", "differs"} <= answers
    page = (tmp_path / "out.md").read_text()
    assert page.count("\n## ") == len(record["tables"]) == 13
    assert max(map(len, answer.stdout.splitlines())) <= 120
    for wrong in (["--text", "nowhere/x"], ["--data", "nowhere.json"], ["--controls", "0"]):
        refused = CliRunner().invoke(app, wrong)
        assert isinstance(refused.exception, SaeGraphsError)  # before anything is loaded
