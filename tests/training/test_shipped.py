"""The files that ship: unchanged since the manifest, small, and as good as the targets say."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from sae_graphs.files import bundled_folder
from training.demo.evaluation import (
    LAYER_TARGETS,
    TOP1_TARGETS,
    answers,
    encode_case,
    load_saes,
    measure_phenomenon,
    measure_spots,
    measure_streams,
)
from training.demo.evaluation_table import layer_rows, markdown, phenomenon_rows, shortfalls
from training.demo.plan import Plan
from training.demo.shipping import LIMIT_BYTES, changed_files, shipped_files
from training.demo.tokenizer import load_tokenizer
from training.demo.tokens import token_rows

FOLDER = bundled_folder()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """The shipped tokenizer."""
    return load_tokenizer(FOLDER / "model")


@pytest.fixture(scope="module")
def model() -> Any:
    """The shipped language model."""
    from transformers import GPT2LMHeadModel

    return GPT2LMHeadModel.from_pretrained(str(FOLDER / "model")).eval()


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """The shipped evaluation."""
    return dict(json.loads((FOLDER / "evaluation.json").read_text(encoding="utf-8")))


def test_files_are_as_the_manifest_says() -> None:
    assert changed_files(FOLDER) == []


def test_the_manifest_holds_the_recipe_of_the_code() -> None:
    manifest = json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["recipe"] == Plan(seed=manifest["seed"]).to_json()
    assert manifest["stages"]["model"]["steps"] == Plan().steps


def test_small_enough_and_no_pickles() -> None:
    files = shipped_files(FOLDER)
    assert sum(path.stat().st_size for path in files) <= LIMIT_BYTES
    assert {path.suffix for path in files} == {".json", ".safetensors"}


@pytest.mark.parametrize("phenomenon", TOP1_TARGETS)
def test_held_out_cases_are_answered(model: Any, tokenizer: Any, phenomenon: str) -> None:
    found = measure_phenomenon(model, tokenizer, phenomenon, 60, seed=1)
    assert found["cases"] >= 60
    assert found["top1"] >= TOP1_TARGETS[phenomenon] - 0.02


def test_the_named_prompts_are_answered(model: Any, tokenizer: Any) -> None:
    found = {spot["prompt"]: spot for spot in measure_spots(model, tokenizer)}
    assert found["Copyright (C"]["probability"] > 0.5
    assert all(spot["is_top"] for spot in found.values())


def test_names_by_initial_keep_an_honest_spread(model: Any, tokenizer: Any) -> None:
    found = measure_spots(model, tokenizer)
    spread = next(spot for spot in found if spot["prompt"].endswith("report from C"))
    assert 0.2 < spread["probability"] < 0.8


def test_a_wrong_answer_is_seen(model: Any, tokenizer: Any) -> None:
    (wrong,) = answers(model, tokenizer, [("Copyright (C", "]")])
    assert wrong is not None
    assert not wrong.is_top
    assert wrong.probability < 0.01


def test_a_case_cut_inside_a_token_is_not_asked(tokenizer: Any) -> None:
    assert encode_case(tokenizer, "The harb", "our") is None


@pytest.mark.slow
def test_saes_reconstruct_the_stream_as_reported(tokenizer: Any, report: dict[str, Any]) -> None:
    from transformer_lens.model_bridge import TransformerBridge

    reported = {item["hook_name"]: item["fvu"] for item in report["layers"]}
    saes = load_saes(FOLDER / "saes")
    assert tuple(saes) == Plan().hook_names
    bridge = TransformerBridge.boot_transformers(str(FOLDER / "model"), device="cpu")
    rows = token_rows(tokenizer, 0, "sae test", context=128, rows=24)
    for hook_name, numbers in measure_streams(
        bridge, saes, torch.from_numpy(rows.astype("int64"))
    ).items():
        assert numbers["l0"] <= LAYER_TARGETS["l0"], hook_name
        assert numbers["fvu"] == pytest.approx(reported[hook_name], rel=0.15), hook_name


def test_shortfalls_name_what_is_missed(report: dict[str, Any]) -> None:
    layer = {"hook_name": "x", "l0": 16.0, "fvu": 0.05, "ce_recovered": 0.99, "dead_percent": 1.0}
    asked = {"phenomenon": "facts", "top1": 0.8, "target": 0.9}
    made_up = {"phenomena": [asked], "layers": [layer]}
    assert shortfalls(made_up) == [
        "facts: top-1 0.800, target 0.90",
        "x: FVU 0.05, target 0.04",
    ]
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(line in readme for line in shortfalls(report))


def test_tables(report: dict[str, Any]) -> None:
    assert len(layer_rows(report)) == 2 + len(Plan().hook_names)
    text = markdown(phenomenon_rows(report))
    assert text.splitlines()[1].startswith("|---|")
    assert "| acronyms |" in text
