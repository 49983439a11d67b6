"""Atlases that are built: what is measured, what is refused, what is told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from tokenizers import normalizers

import sae_graphs as sg
from sae_graphs.atlas import build, measure, store
from sae_graphs.atlas.prompts import Asked
from sae_graphs.effects.build import bare_graph
from sae_graphs.effects.settings import GraphSettings
from sae_graphs.errors import SaeGraphsError
from tests.atlas.conftest import TEXTS
from tests.support.atlases import EFFECT, everything


def test_what_is_there_is_not_measured_again(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []
    own = measure.bare_graph

    def counted(model: Any, prompt: str, *rest: Any, **more: Any) -> Any:
        measured.append(prompt)
        return own(model, prompt, *rest, **more)

    monkeypatch.setattr(measure, "bare_graph", counted)
    rows = [{"prompt": text, "kind": text[4:7]} for text in TEXTS]
    sg.build_atlas(model, [*rows[:2], rows[0]], tmp_path / "a", settings=EFFECT)
    assert measured == list(TEXTS[:2])
    again = sg.build_atlas(model, rows, tmp_path / "a", settings=EFFECT)
    assert measured == list(TEXTS)
    assert (again.measured, again.known) == (2, 2)
    assert len(list((tmp_path / "a" / "parts").iterdir())) == 1  # of all
    whole = sg.build_atlas(model, rows, tmp_path / "b", settings=EFFECT)
    assert everything(tmp_path / "a") == everything(tmp_path / "b")
    assert whole.per_minute > 0
    assert sg.Atlas(tmp_path / "a").categories == ("kind",)


def test_other_rows_are_refused(model: Any, tmp_path: Path) -> None:
    folder = tmp_path / "atlas"
    sg.build_atlas(model, TEXTS[:1], folder, settings=EFFECT)
    before = everything(folder)
    other = GraphSettings(select="effect", min_path_edges=1, top_k=4)
    with pytest.raises(SaeGraphsError, match="an atlas with top_k 3, and this build has 4"):
        sg.build_atlas(model, TEXTS, folder, settings=other)
    weights = next(model.model.parameters())
    held = weights.detach().clone()
    try:
        weights.data += 0.01
        with pytest.raises(SaeGraphsError, match="is an atlas with digest"):
            sg.build_atlas(model, TEXTS, folder, settings=EFFECT)
    finally:
        weights.data.copy_(held)
    assert everything(folder) == before


@pytest.mark.parametrize(
    "change",
    [
        *("a density", "a mean", "the SAE's settings", "the tokenizer", "what is resampled"),
        "a mean of effects",
    ],
)
def test_what_determines_the_rows_is_in_the_digest(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    file = tmp_path / "other.txt"
    file.write_text("the dog sat")
    intervention = f"resample:{file}" if "resampled" in change else None
    settings = EFFECT if "resampled" in change or "effects" in change else GraphSettings(nodes=5)
    if "effects" in change:
        intervention = "mean"

    def facts() -> Any:
        return measure.Here(model, build.plan_of(settings, intervention)).facts()

    before = facts()
    assert facts() == before
    if "density" in change or "mean" in change:
        own = measure.references_of

        def other(*given: Any) -> Any:
            first, *rest = own(*given)
            name = "density" if "density" in change else "mean"
            return [replace(first, **{name: getattr(first, name) * 0.5}), *rest]

        monkeypatch.setattr(measure, "references_of", other)
    elif "settings" in change:
        cfg = model.stack.layers[0].cfg
        held = {**cfg.to_dict(), "normalize_activations": "something else"}
        monkeypatch.setattr(type(cfg), "to_dict", lambda self: held)
    elif "tokenizer" in change:
        fast = model.model.tokenizer.backend_tokenizer
        fast.enable_truncation(3)  # of a call, not of the tokenizer
        assert facts() == before
        fast.no_truncation()
        monkeypatch.setattr(fast, "normalizer", normalizers.Lowercase())
    else:
        file.write_text("the cat sat")
    assert facts() != before
    if "resampled" in change:
        assert facts()["intervention"] != before["intervention"]
        file.rename(tmp_path / "moved.txt")
        intervention = f"resample:{tmp_path / 'moved.txt'}"
        (tmp_path / "moved.txt").write_text("the dog sat")
        assert facts() == before, "a file's name says nothing"


def test_a_bad_prompt_is_listed_and_ends_nothing(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = measure.bare_graph

    def failing(model: Any, prompt: str, *rest: Any, **more: Any) -> Any:
        if prompt == TEXTS[1]:
            raise MemoryError("too much")
        return own(model, prompt, *rest, **more)

    monkeypatch.setattr(measure, "bare_graph", failing)
    rows = [{"prompt": TEXTS[0]}, {"prompt": TEXTS[1]}, {"prompt": "the cat " * 40}]
    rows += [{"prompt": TEXTS[2], "target": "no such token at all"}]
    settings = GraphSettings(nodes=5)
    built = sg.build_atlas(model, rows, tmp_path / "atlas", settings=settings)
    assert built.measured == 1
    reasons = dict(built.failed)
    assert reasons[TEXTS[1]] == "MemoryError: too much"
    assert len(reasons) == 3 and all("\n" not in reason for reason in reasons.values())
    held = sg.Atlas(tmp_path / "atlas").sql("FROM failures")
    assert dict(zip(held["prompt"], held["reason"], strict=True)) == reasons
    monkeypatch.setattr(measure, "bare_graph", own)
    again = sg.build_atlas(model, rows, tmp_path / "atlas", settings=settings)
    assert (again.measured, again.known, len(again.failed)) == (1, 1, 2)
    assert len(sg.Atlas(tmp_path / "atlas").sql("FROM failures")) == 2


def test_nothing_but_failures_is_an_error(model: Any, tmp_path: Path) -> None:
    with pytest.raises(SaeGraphsError, match="not one of 1 prompts could be measured; the first"):
        sg.build_atlas(model, ["the cat " * 40], tmp_path / "atlas", settings=EFFECT)


def test_another_column_is_added(model: Any, tmp_path: Path, logged: StringIO) -> None:
    folder = tmp_path / "a"
    rows = [{"prompt": text, "kind": text[4:7]} for text in TEXTS]
    sg.build_atlas(model, rows[:2], folder, settings=EFFECT)
    assert not logged.getvalue()
    more = [{"prompt": TEXTS[2], "size": "s"}, {"prompt": TEXTS[0], "kind": "new", "size": "l"}]
    sg.build_atlas(model, [*more, {**more[0], "size": "m"}], folder, settings=EFFECT)
    said = logged.getvalue().splitlines()
    assert "1 prompt given twice with different categories; the first ones are kept" in said[0]
    assert "1 prompt measured before with other categories, which are kept" in said[1]
    atlas = sg.Atlas(folder)
    assert atlas.categories == ("kind", "size")
    held = atlas.prompts().set_index("prompt")[["kind", "size"]].astype(object)
    assert held.where(held.notna(), None).loc[list(TEXTS[:3])].values.tolist() == [
        *([TEXTS[0][4:7], None], [TEXTS[1][4:7], None], [None, "s"])
    ]
    for found in (atlas.features(), atlas.edges()):
        assert {"kind", "size"} <= set(found) and len(found)
    assert {"kind", "size"} <= set(atlas.similar(Asked(TEXTS[0]).id))
    with pytest.raises(SaeGraphsError, match="two differ in case alone"):
        sg.build_atlas(model, [{"prompt": TEXTS[3], "Kind": "x"}], folder, settings=EFFECT)
    assert sg.Atlas(folder).categories == ("kind", "size")


def test_a_column_that_no_part_has_yet(model: Any, tmp_path: Path) -> None:
    """The build was killed when the manifest had the name, and nothing was measured."""
    folder = tmp_path / "a"
    sg.build_atlas(model, TEXTS[:2], folder, settings=EFFECT)
    with store.writing(folder, store.Manifest(store.Manifest.read(folder).facts, ("size",))):
        pass
    (folder / ".atlas.json.0123").write_text("half")
    atlas = sg.Atlas(folder)
    for found in (atlas.features(), atlas.edges(), atlas.prompts()):
        assert found["size"].isna().all() and len(found)
    sg.build_atlas(model, TEXTS[:2], folder, settings=EFFECT)
    assert not list(folder.glob(".atlas.json.*"))


def test_what_a_killed_build_left_is_no_other_program_s(model: Any, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".atlas.json.0123").write_text("half")
    assert sg.build_atlas(model, TEXTS[:1], tmp_path / "a", settings=EFFECT).measured == 1


def test_half_characters_are_told_or_replaced(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for row in (
        {"prompt": "a\ud800"},
        {"prompt": "a", "kind": "\udfff"},
        {"prompt": "a", "\ud800": "b"},
    ):
        with pytest.raises(SaeGraphsError, match=r"prompt 2: .* half a character"):
            sg.build_atlas(model, [TEXTS[0], row], tmp_path / "a", settings=EFFECT)

    def failing(model: Any, prompt: str, *rest: Any, **more: Any) -> Any:
        if prompt == TEXTS[1]:
            raise ValueError("bad \ud800 byte")
        return bare_graph(model, prompt, *rest, **more)

    monkeypatch.setattr(measure, "bare_graph", failing)
    built = sg.build_atlas(model, TEXTS[:3], tmp_path / "a", settings=EFFECT)
    assert built.measured == 2
    assert [reason for _, reason in built.failed] == ["ValueError: bad ? byte"]


def test_the_last_reason_stands(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often a prompt fails, in parts of their own and when all are made one."""
    reasons = iter(["zebra", "apple", "mango"])

    def failing(model: Any, prompt: str, *rest: Any, **more: Any) -> Any:
        if prompt == TEXTS[1]:
            raise ValueError(next(reasons))
        return bare_graph(model, prompt, *rest, **more)

    monkeypatch.setattr(measure, "bare_graph", failing)
    for reason in ("zebra", "apple", "mango"):
        sg.build_atlas(model, TEXTS[:2], tmp_path / "a", settings=EFFECT)
        held = sg.Atlas(tmp_path / "a").sql("FROM failures")
        assert held["reason"].tolist() == [f"ValueError: {reason}"]


def test_other_programs_read_the_views(model: Any, tmp_path: Path, monkeypatch: Any) -> None:
    import duckdb

    sg.build_atlas(model, TEXTS[:2], tmp_path / "a", settings=EFFECT)
    (tmp_path / "a").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    database = duckdb.connect("atlas.duckdb", read_only=True)
    assert database.execute("SELECT count(*) FROM prompts").fetchall() == [(2,)]
    database.close()
    facts = json.loads(Path("atlas.json").read_text())
    assert facts["schema"] == "sae_graphs/atlas/1" and facts["made_with"]["sae_graphs"]
    assert facts["facts"]["settings"]["top_k"] == 3


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "atlas.json").write_text("{"), "atlas.json is not JSON"),
        (lambda folder: (folder / "atlas.json").write_text("{}"), "is not of the schema"),
        (lambda folder: (folder / "atlas.json").unlink(), "is no atlas"),
        (
            lambda folder: next(folder.glob("parts/*/edges.parquet")).write_bytes(b"nothing"),
            "cannot read",
        ),
        (lambda folder: shutil.rmtree(folder / "parts"), "holds no prompts yet"),
    ],
)
def test_damage_is_told_in_a_line(
    model: Any, tmp_path: Path, damage: Callable[[Path], Any], words: str
) -> None:
    sg.build_atlas(model, TEXTS[:1], tmp_path / "a", settings=EFFECT)
    damage(tmp_path / "a")
    with pytest.raises(SaeGraphsError, match=words) as told:
        sg.Atlas(tmp_path / "a")
    assert "\n" not in str(told.value)


def test_mistakes_are_told_before_anything_is_measured(model: Any, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    tries: dict[Callable[[], Any], str] = {
        lambda: sg.build_atlas(model, [], tmp_path / "a"): "there are no prompts",
        lambda: sg.build_atlas(model, "text", tmp_path / "a"): "expected several prompts",
        lambda: sg.build_atlas(model, TEXTS, tmp_path / "other"): "holds notes.txt",
        lambda: sg.build_atlas(None, TEXTS, tmp_path / "a"): "no model with SAEs",  # type: ignore[arg-type]
        lambda: sg.build_atlas(
            model, TEXTS, tmp_path / "a", ray="local"
        ): "give its name or folder",
        lambda: sg.build_atlas(model, [{"prompt": "a", "layer": "1"}], tmp_path / "a"): (
            "has the name of one that this atlas has itself"
        ),
        lambda: sg.build_atlas(model, TEXTS, tmp_path / "a", rays="x"): "did you mean ray",  # type: ignore[call-arg]
    }
    for tried, words in tries.items():
        with pytest.raises(SaeGraphsError, match=words):
            tried()
    for name in ("answer", "x", "Y", "shared_edges", "similarity", "tried"):
        with pytest.raises(SaeGraphsError, match="has the name of one that this atlas has itself"):
            sg.build_atlas(model, [{"prompt": "a", name: "1"}], tmp_path / "a")
    assert not (tmp_path / "a").exists()
