"""Training on a tiny scale, end to end: every stage, resuming, and refusing a mixed recipe."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.progress import Progress
from typer.testing import CliRunner

from sae_graphs.errors import SaeGraphsError
from sae_graphs.files import bundled_folder
from training.demo import model as language_model
from training.demo.plan import Plan
from training.demo.sae_training import RowSource, Training, started_saes
from training.demo.shipping import changed_files
from training.demo.tokenizer import load_tokenizer
from training.demo.tokens import token_rows
from training.demo.train import STAGES, train

TINY = replace(
    Plan(),
    vocab_size=400,
    tokenizer_documents=300,
    context=32,
    layers=2,
    width=16,
    heads=2,
    batch_rows=4,
    model_tokens=4 * 32 * 6,
    warmup_steps=2,
    checkpoint_steps=3,
    sae_features=32,
    sae_active=4,
    sae_tokens=2048,
    sae_batch=256,
    refining_tokens=2048,
    context_tokens=2000,
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny bundled model, built by every stage."""
    out = tmp_path_factory.mktemp("built")
    with torch.enable_grad():
        train(out, TINY, Progress(disable=True))
    return out


def rows(count: int) -> object:
    """Rows of tokens below the tiny model's vocabulary."""
    tokenizer = load_tokenizer(bundled_folder() / "model")
    return token_rows(tokenizer, 0, "tiny", context=32, rows=count) % 400


def weights(model: object) -> list[torch.Tensor]:
    """Copies of all parameters."""
    return [parameter.detach().clone() for parameter in model.parameters()]  # type: ignore[attr-defined]


class _Interrupted(Exception):
    """Stands for a power cut."""


@pytest.mark.slow
def test_a_training_starts_from_the_finished_weights(built: Path) -> None:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge

    bridge = TransformerBridge.boot_transformers(str(built / "model"), device="cpu")
    name = TINY.refined_hook_names[0]
    training = Training("test", (name,), 1024, 1e-3, 10)
    source = RowSource(built / "model", TINY, "test", lambda count: None)
    started = started_saes(TINY, training, built / "saes", bridge, source)[name]
    finished = SAE.load_from_disk(str(built / "saes" / name))
    x = 5 * torch.randn(20, TINY.width, generator=torch.Generator().manual_seed(0))
    scale = float((started.b_dec / finished.b_dec).mean())
    torch.testing.assert_close(started(x * scale), finished(x) * scale)


@pytest.mark.slow
def test_every_stage_leaves_its_result(built: Path) -> None:
    for stage in STAGES:
        assert (built / ".progress" / f"{stage}.json").is_file(), stage
    assert (built / "model" / "model.safetensors").is_file()
    for hook_name in TINY.hook_names:
        files = {path.name for path in (built / "saes" / hook_name).iterdir()}
        assert files == {
            *("cfg.json", "sae_weights.safetensors"),
            *("contexts.safetensors", "reference.safetensors"),
        }


@pytest.mark.slow
def test_nothing_is_pickled(built: Path) -> None:
    kinds = {path.suffix for path in built.rglob("*") if path.is_file()}
    assert kinds <= {".json", ".safetensors", ".npy", ".md", ""}


@pytest.mark.slow
def test_the_manifest_notices_a_changed_file(built: Path) -> None:
    assert changed_files(built) == []
    config = built / "model" / "config.json"
    before = config.read_text(encoding="utf-8")
    config.write_text(before + " ", encoding="utf-8")
    assert changed_files(built) == ["model/config.json"]
    config.write_text(before, encoding="utf-8")


@pytest.mark.slow
def test_the_early_saes_are_refined(built: Path) -> None:
    note = json.loads((built / ".progress" / "refining.json").read_text(encoding="utf-8"))
    assert note["hook_names"] == ["blocks.1.hook_resid_pre", "blocks.1.hook_resid_post"]


@pytest.mark.slow
def test_sae_metadata_is_complete(built: Path) -> None:
    for hook_name in TINY.hook_names:
        text = (built / "saes" / hook_name / "cfg.json").read_text(encoding="utf-8")
        config = json.loads(text)
        metadata = config["metadata"]
        assert config["architecture"] == "topk"
        assert config["k"] == TINY.sae_active
        assert metadata["hook_name"] == hook_name
        assert metadata["model_name"] == "demo"
        assert metadata["prepend_bos"] is True
        assert metadata["context_size"] == TINY.context
        assert metadata["model_from_pretrained_kwargs"] == {}
        assert metadata.get("neuronpedia_id") is None


@pytest.mark.slow
def test_a_finished_build_is_not_done_again(built: Path) -> None:
    weights_file = built / "model" / "model.safetensors"
    before = weights_file.stat().st_mtime_ns
    train(built, TINY, Progress(disable=True))
    assert weights_file.stat().st_mtime_ns == before


@pytest.mark.slow
def test_another_recipe_is_refused(built: Path) -> None:
    with pytest.raises(SaeGraphsError, match=r"another recipe .*width"):
        train(built, replace(TINY, width=32), Progress(disable=True))


def test_unknown_stage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SaeGraphsError, match="unknown stage 'dessert'"):
        train(tmp_path, TINY, Progress(disable=True), until="dessert")


@pytest.mark.slow
def test_an_interrupted_training_ends_like_an_uninterrupted_one(tmp_path: Path) -> None:
    data = rows(TINY.steps * TINY.batch_rows)

    def stop(step: int, loss: float) -> None:
        if step == 4:
            raise _Interrupted

    with torch.enable_grad():
        whole, report = language_model.train_model(TINY, data, tmp_path / "a.safetensors")  # type: ignore[arg-type]
        with pytest.raises(_Interrupted):
            language_model.train_model(TINY, data, tmp_path / "b.safetensors", advance=stop)  # type: ignore[arg-type]
        resumed, again = language_model.train_model(TINY, data, tmp_path / "b.safetensors")  # type: ignore[arg-type]
    assert report.losses == again.losses
    for one, other in zip(weights(whole), weights(resumed), strict=True):
        assert torch.equal(one, other)


def test_the_learning_rate_rises_and_falls() -> None:
    plan = Plan()
    assert language_model.rate_factor(0, plan) == pytest.approx(1 / plan.warmup_steps)
    assert language_model.rate_factor(plan.warmup_steps, plan) == 1.0
    assert language_model.rate_factor(plan.steps - 1, plan) < 0.01


def test_a_plan_checks_itself() -> None:
    with pytest.raises(ValueError, match="not a multiple"):
        replace(Plan(), heads=3)
    with pytest.raises(ValueError, match="less than one step"):
        replace(Plan(), model_tokens=10)


def test_mistakes_on_the_command_line_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from training.demo.__main__ import main

    monkeypatch.setattr("sys.argv", ["training.demo", "evaluate", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert "holds no trained model" in said
    assert len(said.strip().splitlines()) == 1


@pytest.mark.slow
def test_the_module_runs_as_one(tmp_path: Path) -> None:
    asked = [sys.executable, "-m", "training.demo", "evaluate", "--out", str(tmp_path)]
    done = subprocess.run(
        asked, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False
    )
    assert done.returncode == 2
    assert "holds no trained model" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_help_is_quick_and_complete() -> None:
    from training.demo.__main__ import app

    found = CliRunner().invoke(app, ["--help"])
    assert found.exit_code == 0
    assert "train" in found.output
    assert "evaluate" in found.output
