"""Training SAEs on a tiny model: from text to a folder that `load` takes, resumed and measured."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import sae_graphs as sg
from sae_graphs.errors import SaeGraphsError
from sae_graphs.model.instrument import InstrumentedModel
from sae_graphs.model.language_model import LanguageModel
from sae_graphs.training import train as stages
from sae_graphs.training import trainer as training
from sae_graphs.training.activations import make_shards, missing_shards, streams_of
from sae_graphs.training.measure import measure
from sae_graphs.training.plan import SHARD_ROWS, Plan
from sae_graphs.training.rows import Rows, make_rows, read_rows, save_rows
from sae_graphs.training.sparse import SparseTopK
from sae_graphs.training.store import open_store, shard_file, write_shard
from sae_graphs.training.texts import Texts
from sae_graphs.training.train import Place, Told, train_saes
from tests.support.models import CORPUS, D_MODEL, random_stack, save_model

NAMES = ("blocks.0.hook_resid_post", "blocks.2.hook_resid_post")
PLAN = Plan(
    NAMES,
    tokens=3_000,
    held_out=300,
    context=16,
    features=48,
    active=8,
    passes=12,
    rate=3e-3,
    batch=128,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return sg.load_model(save_model("llama", tmp_path_factory.mktemp("llama") / "model"))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two kinds of text."""
    folder = tmp_path_factory.mktemp("text")
    source, words = random.Random(0), CORPUS.split()
    for kind in ("tales", "lists"):
        (folder / kind).mkdir()
        lines = (" ".join(source.choices(words, k=12)) for _ in range(500))
        (folder / kind / "some.txt").write_text("\n".join(lines), encoding="utf-8")
    (folder / "about.json").write_text("{}", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def trained(
    model: LanguageModel, text: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any], list[str]]:
    """The folder of a whole training, its evaluation, and what it said."""
    out = tmp_path_factory.mktemp("trained")
    said: list[str] = []
    found = train_saes(model, PLAN, Texts(str(text)), out, told=Told(said.append))
    return out, found, said


class _Killed(BaseException):
    """Stands for a power cut."""


# -- the whole -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_comes_out_is_loaded_by_name_and_place(
    trained: tuple[Path, dict[str, Any], list[str]], model: LanguageModel
) -> None:
    loaded = sg.load(model.name, saes=trained[0] / "saes")
    assert [layer.point.hook_name for layer in loaded.stack.layers] == list(NAMES)
    assert loaded.prepend_bos == model.prepend_bos
    cfg = json.loads((trained[0] / "saes" / NAMES[0] / "cfg.json").read_text())
    assert cfg["metadata"]["hook_name"] == NAMES[0]
    assert cfg["metadata"]["sae_lens_version"]
    assert cfg["normalize_activations"] == "none"
    weights = load_file(trained[0] / "saes" / NAMES[0] / "sae_weights.safetensors")
    assert {at.dtype for at in weights.values()} == {torch.float16}
    graph = sg.causal_graph(loaded, "the cat sat on the old", nodes=4)
    assert graph.run.model == model.name


@pytest.mark.slow
def test_the_evaluation_says_how_faithful_they_are(
    trained: tuple[Path, dict[str, Any], list[str]],
) -> None:
    found = trained[1]
    assert found == json.loads((trained[0] / "evaluation.json").read_text())
    assert [layer["hook_name"] for layer in found["layers"]] == list(NAMES)
    for layer in found["layers"]:
        assert layer["fvu"] < 0.3
        assert 0 < layer["l0"] <= PLAN.active
        assert layer["kinds"].keys() == {"tales", "lists"}
        assert 0 < layer["kinds"]["tales"]["fvu"] < 0.5


@pytest.mark.slow
def test_what_it_takes_is_foretold(trained: tuple[Path, dict[str, Any], list[str]]) -> None:
    (line,) = trained[2]
    assert line.startswith("activations: 1MiB of the disk, about ")
    assert "2 SAEs of 48 features: about " in line


@pytest.mark.slow
def test_a_second_run_only_measures(
    trained: tuple[Path, dict[str, Any], list[str]],
    model: LanguageModel,
    text: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stages, "_train", lambda *given: pytest.fail("trained again"))
    said: list[str] = []
    found = train_saes(model, PLAN, Texts(str(text)), trained[0], told=Told(said.append))
    assert found == trained[1]
    assert said == ["all SAEs are trained"]


def test_a_folder_of_another_training_is_refused(
    model: LanguageModel, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*given: Any) -> None:
        raise _Killed

    with monkeypatch.context() as patch:  # rows and activations are there, no SAE is
        patch.setattr(stages, "train_missing", killed)
        with pytest.raises(_Killed):
            train_saes(model, PLAN, Texts(str(text)), tmp_path)
    with pytest.raises(SaeGraphsError, match=r"different: seed\); choose another --out"):
        train_saes(model, replace(PLAN, seed=1), Texts(str(text)), tmp_path)
    with pytest.raises(SaeGraphsError, match=r"without blocks[.]1[.]hook_resid_post"):
        other = replace(PLAN, hook_names=(*NAMES, "blocks.1.hook_resid_post"))
        train_saes(model, other, Texts(str(text)), tmp_path)


# -- resuming --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_training_ends_in_the_same_weights(
    trained: tuple[Path, dict[str, Any], list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = open_store(Place(trained[0]).activations, NAMES[1], range(1, 3), PLAN.outlier)
    checkpoint = tmp_path / "state.safetensors"
    monkeypatch.setattr(training, "SAVED_EVERY", 0.0)
    deaths = iter((PLAN.steps // 20, PLAN.steps // 3, PLAN.steps - 2))

    def told(done: int, total: int, fvu: float) -> None:
        if done == next_death[0]:
            next_death[0] = next(deaths, -1)
            raise _Killed

    next_death = [next(deaths)]
    with torch.enable_grad():
        for _ in range(3):
            with pytest.raises(_Killed):
                training.train_sae(store, PLAN, checkpoint, told=told)
        ended = training.train_sae(store, PLAN, checkpoint, told=told)
        fvus: list[float] = []
        whole = training.train_sae(
            store,
            PLAN,
            tmp_path / "other.safetensors",
            told=lambda done, total, fvu: fvus.append(fvu),
        )
    for name, weights in whole.inner.sae.state_dict().items():
        assert torch.equal(weights, ended.inner.sae.state_dict()[name]), name
    assert fvus[-1] < 0.5 * fvus[0]


def test_a_checkpoint_of_another_plan_is_left_alone(tmp_path: Path) -> None:
    write_shard(shard_file(tmp_path, 0), {NAMES[1]: torch.randn(40, 17, D_MODEL)})
    store = open_store(tmp_path, NAMES[1], range(1), PLAN.outlier)
    trainer = training.Trainer(store, PLAN)
    with torch.enable_grad():
        trainer.step()
    trainer.save(tmp_path / "state.safetensors", "one")
    assert not training.Trainer(store, PLAN).restore(tmp_path / "state.safetensors", "another")
    (tmp_path / "state.safetensors").write_bytes(b"half a file")
    assert not training.Trainer(store, PLAN).restore(tmp_path / "state.safetensors", "one")


def test_a_killed_first_stage_keeps_whole_files_alone(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = torch.randint(2, 200, (3 * SHARD_ROWS, 4))
    rows = Rows(ids, torch.zeros(len(ids)), ("a",), SHARD_ROWS)
    points = PLAN.points
    calls = 0
    whole = streams_of

    def killed(*given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise _Killed
        return whole(*given)

    with monkeypatch.context() as patch:
        patch.setattr("sae_graphs.training.activations.streams_of", killed)
        with pytest.raises(_Killed):
            make_shards(model, rows, points, tmp_path)
    assert missing_shards(tmp_path, 3) == [1, 2]
    assert {file.suffix for file in tmp_path.iterdir()} == {".safetensors"}
    heard: list[int] = []
    make_shards(model, rows, points, tmp_path, lambda done, total: heard.append(done))
    assert missing_shards(tmp_path, 3) == []
    assert heard[-1] == len(ids)


# -- the parts -------------------------------------------------------------------------------------


def test_streams_are_those_of_the_model(model: LanguageModel) -> None:
    ids = torch.randint(2, 200, (3, 6))
    found = streams_of(model, ids, PLAN.points)
    for row in range(3):
        run = model.run(ids[row].tolist())
        for point in PLAN.points:
            theirs = run.inputs[point.block + 1]
            assert torch.allclose(found[point.hook_name][row], theirs, atol=1e-5)


def test_a_store_gives_any_position_and_leaves_outliers_out(tmp_path: Path) -> None:
    streams = [torch.randn(4, 6, D_MODEL) for _ in range(2)]
    streams[1][2, 3] *= 1000.0
    for number, stream in enumerate(streams):
        write_shard(shard_file(tmp_path, number), {"blocks.0.hook_resid_pre": stream})
    store = open_store(tmp_path, "blocks.0.hook_resid_pre", range(2), outlier=6.0)
    kept = torch.cat([stream[:, 1:].flatten(0, 1) for stream in streams])
    kept = torch.cat([kept[: 20 + 12], kept[20 + 13 :]])
    assert (len(store), store.left_out, store.width) == (39, 1, D_MODEL)
    order = torch.randperm(39)
    assert torch.allclose(store.at(order), kept[order], atol=2e-3)
    assert store.mean_norm == pytest.approx(float(kept.norm(dim=-1).mean()), rel=1e-4)
    assert torch.allclose(store.mean, store.at(torch.tensor([0])).mean(0))


def test_each_pass_sees_every_position_once_in_another_order(tmp_path: Path) -> None:
    write_shard(shard_file(tmp_path, 0), {NAMES[0]: torch.randn(40, 17, D_MODEL)})
    store = open_store(tmp_path, NAMES[0], range(1), outlier=60.0)
    trainer = training.Trainer(store, replace(PLAN, batch=64, tokens=2_000))
    passes = [torch.cat([trainer._numbers(10 * at + step) for step in range(10)]) for at in (0, 1)]
    for numbers in passes:
        assert sorted(numbers.tolist()) == list(range(640))
    assert not torch.equal(*passes)


@pytest.mark.parametrize("dead", [0, 20])
def test_the_sparse_decoder_learns_what_sae_lens_own_does(dead: int) -> None:
    from sae_lens.saes.sae import TrainStepInput
    from sae_lens.saes.topk_sae import TopKTrainingSAE

    configured = [training._sae_config(32, PLAN, "cpu") for _ in range(2)]
    ours, theirs = SparseTopK(configured[0]), TopKTrainingSAE(configured[1])
    theirs.load_state_dict(ours.state_dict())
    mask = torch.arange(PLAN.features) < dead
    x = torch.randn(64, 32)
    with torch.enable_grad():
        for sae in (ours, theirs):
            given = TrainStepInput(x, {}, mask, 1, False)
            sae.training_forward_pass(given).loss.backward()
    for (name, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, rtol=1e-4, atol=1e-5), name


def test_the_numbers_of_an_sae_that_errs_by_a_known_part(model: LanguageModel) -> None:
    """An SAE whose output is always the mean explains nothing; one that copies, everything."""
    loaded = InstrumentedModel(model.model, random_stack(model.model, NAMES, ["standard"]))
    words = random.Random(1).choices(CORPUS.split(), k=9_000)
    rows = make_rows([("a", " ".join(words))], model.tokenizer, PLAN, bos=0)
    kept = rows.measured
    for layer in loaded.stack.layers:
        stream = model.streams_at(kept, [layer.point])[0][:, 1:].flatten(0, 1)
        mean = stream.mean(0)
        layer.sae.decode = lambda acts, mean=mean: mean.expand(*acts.shape[:-1], -1)
    found = measure(model, loaded.stack.layers, rows, loss_rows=2)
    assert [layer["fvu"] for layer in found["layers"]] == pytest.approx([1.0, 1.0], abs=1e-4)


def test_rows_differ_and_what_is_held_out_is_apart(model: LanguageModel, tmp_path: Path) -> None:
    source, words = random.Random(1), CORPUS.split()
    texts = [("a", " ".join(source.choices(words, k=9_000)))] * 3  # twice the same is once
    rows = make_rows(texts[:1] + texts, model.tokenizer, PLAN, bos=0)
    assert rows.ids.shape == (PLAN.rows + PLAN.held_out_rows, PLAN.context)
    assert len({tuple(row) for row in rows.ids.tolist()}) == len(rows.ids)
    assert (rows.ids[:, 0] == 0).all()
    save_rows(rows, tmp_path / "rows.safetensors")
    again = read_rows(tmp_path / "rows.safetensors")
    assert again is not None
    assert torch.equal(again.ids, rows.ids)
    assert (again.kinds, again.held_out) == (("a",), SHARD_ROWS)
    (tmp_path / "rows.safetensors").write_bytes(b"half")
    assert read_rows(tmp_path / "rows.safetensors") is None


# -- mistakes --------------------------------------------------------------------------------------


def test_too_little_text_is_one_line(model: LanguageModel, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("the cat sat " * 500)
    with pytest.raises(SaeGraphsError, match="tokens in rows that differ, and 3,000 are wanted"):
        train_saes(model, PLAN, Texts(str(tmp_path / "short.txt")), tmp_path / "out")


def test_a_block_that_is_not_there_is_one_line(model: LanguageModel, text: Path) -> None:
    plan = replace(PLAN, hook_names=("blocks.0.hook_resid_post", "blocks.3.hook_resid_post"))
    with pytest.raises(SaeGraphsError, match="no block 3; its blocks are 0 to 2"):
        train_saes(model, plan, Texts(str(text)), "out")


def test_a_disk_that_is_too_small_is_said_before_the_work(
    model: LanguageModel, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "MARGIN", 2**60)
    monkeypatch.setattr(stages, "make_shards", lambda *given: pytest.fail("begun"))
    with pytest.raises(SaeGraphsError, match="do not fit on the disk"):
        train_saes(model, PLAN, Texts(str(text)), tmp_path / "out")


def test_texts_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(SaeGraphsError, match="no text file and no folder"):
        Texts(str(tmp_path / "none"))
    with pytest.raises(SaeGraphsError, match="holds no files"):
        Texts(str(tmp_path))
    (tmp_path / "empty.txt").touch()
    with pytest.raises(SaeGraphsError, match="is empty"):
        Texts(str(tmp_path))
    (tmp_path / "picture.png").write_bytes(bytes(range(256)) * 20)
    with pytest.raises(SaeGraphsError, match=r"picture\.png is no text in UTF-8"):
        list(Texts(str(tmp_path)).pairs())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hook_names": ()}, "no layers"),
        ({"hook_names": (NAMES[0], NAMES[0])}, "given twice"),
        ({"active": 48}, "expected fewer"),
        ({"tokens": 100}, "too few to train on"),
        ({"context": 1}, "context is 1"),
        ({"passes": 0}, "above 0"),
    ],
)
def test_a_plan_that_cannot_be_is_one_line(change: dict[str, Any], said: str) -> None:
    with pytest.raises(SaeGraphsError, match=said):
        replace(PLAN, **change)
