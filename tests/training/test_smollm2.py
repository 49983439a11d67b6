"""SmolLM2's texts, contexts from kept activations, and what is said of targets that are missed."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import sae_graphs as sg
from sae_graphs.training.activations import streams_of
from sae_graphs.training.plan import SHARD_ROWS
from sae_graphs.training.rows import Rows
from sae_graphs.training.store import shard_file, write_shard
from tests.support.models import save_model, save_sae_folder
from training.smollm2 import shipping, sources
from training.smollm2.evaluation import kind_rows, layer_rows, shortfalls
from training.smollm2.plan import PLAN, SHIPPED_BYTES, WEIGHT_BYTES
from training.smollm2.readers import READERS
from training.smollm2.shipping import Stored
from training.smollm2.texts import PIECE, taken

HTML = """<html><head><title>no</title></head><body><nav>no</nav><h1>A title</h1>
<p>Some text that is
wrapped &amp; marked <b>up</b>.</p><pre>kept
  as it is</pre><script>no</script></body></html>"""


def _string(text: bytes) -> bytes:
    return b"\x00\x04\x00\x09" + len(text).to_bytes(4, "big") + text


def _rdb() -> bytes:
    lines = [b"It is a truth", b"universally acknowledged", b"", b"CHAPTER 2"]
    held = b"X\n" + b"".join(map(_string, lines))
    packed = zlib.compress(held)
    return (len(held).to_bytes(4, "big") + packed) * 2


@pytest.mark.parametrize(
    ("reader", "name", "content", "paragraphs"),
    [
        ("html", "x.html", HTML, ["A title", "Some text that is wrapped & marked up."]),
        ("html", "x.html", HTML, ["kept\n  as it is"]),
        ("wrapped", "x.txt", "One line\ngoes on.\n\nAnother.", ["One line goes on.", "Another."]),
        ("dictionary", "x", "amb\n   n 1: a thing\n\nanb\n   n 1", ["amb n 1: a thing", "anb n 1"]),
        ("fortunes", "wit", "A\n  -- B\n%\nC\n", ["A\n  -- B", "C"]),
        ("lists", "x", "France:Paris\nItaly:Ro[me|ma]", ["France: Paris\nItaly: Ro"]),
        ("entries", "x.txt", "%%%%\nRat\n\nA small\nbeast.\n%%%%\n", ["A small beast."]),
        ("wml", "x.cfg", 'message= _ "Say ""this""\nnow"\nname=_ "no"', ['Say "this" now']),
        ("names", "x.json", '{"3166": [{"a": "DE", "n": "Germany"}]}', ["DE, Germany"]),
        ("pod", "x.pod", "=head1 B<Name>\n\nUse C<it>\nnow.\n\n  code()", ["Name", "Use it now."]),
        ("code", "x.py", "def f():\n    return 1\n\nx = 2", ["def f():\n    return 1", "x = 2"]),
        ("rdb", "x.rdb", _rdb(), ["It is a truth universally acknowledged", "CHAPTER 2"]),
        ("wrapped", "x.dz", gzip.compress(b"packed\ntext", mtime=0), ["packed text"]),
    ],
)
def test_a_file_becomes_paragraphs(
    tmp_path: Path, reader: str, name: str, content: str | bytes, paragraphs: list[str]
) -> None:
    file = tmp_path / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    found = list(READERS[reader](file))
    assert [paragraph for paragraph in found if paragraph in paragraphs][: len(paragraphs)] == (
        paragraphs
    )


def test_of_a_long_text_pieces_are_taken_from_everywhere() -> None:
    text = [f"{number:05d} " + "word " * 100 for number in range(1_000)]
    some = list(taken(text, 100_000))
    assert sum(map(len, some)) == pytest.approx(100_000, rel=0.1)
    numbers = [int(paragraph[:5]) for paragraph in some]
    assert numbers == sorted(numbers)
    assert numbers[0] < 100 and numbers[-1] > 900
    assert list(taken(text[:3], 100_000)) == text[:3]
    assert PIECE < 100_000 / 10


def test_every_source_has_a_reader_and_a_name_of_its_own() -> None:
    assert {source.reader for source in sources.SOURCES} <= READERS.keys()
    files = [(source.kind, source.package) for source in sources.SOURCES]
    assert len(set(files)) == len(files)
    described = json.loads(Path("autoencoders/smollm2/texts.json").read_text(encoding="utf-8"))
    assert [(at["kind"], at["package"]) for at in described["texts"]] == files
    assert all(len(at["sha256"]) == len(at["package_sha256"]) == 64 for at in described["texts"])


def test_the_plan_ships_within_its_limits() -> None:
    each = 2 * (2 * 576 * PLAN.features + 576 + PLAN.features)
    assert each * len(PLAN.hook_names) < WEIGHT_BYTES < SHIPPED_BYTES
    assert PLAN.hook_names[-1] == "blocks.29.hook_resid_post"
    assert 7 <= len(PLAN.hook_names) <= 11


def test_kept_streams_stand_for_the_model_in_any_order(tmp_path: Path) -> None:
    folder = save_model("llama", tmp_path / "model")
    model = sg.load(str(folder), saes=save_sae_folder(tmp_path / "saes"))
    ids = torch.randint(2, 200, (2 * SHARD_ROWS, 6))
    rows = Rows(ids, torch.zeros(len(ids)), ("a",), 0)
    points = [layer.point for layer in model.stack.layers]
    for shard in range(2):
        some = ids[shard * SHARD_ROWS :][:SHARD_ROWS]
        write_shard(shard_file(tmp_path, shard), streams_of(model, some, points))
    stored = Stored(model.model, model.stack, model.name, rows, tmp_path)
    asked = ids[torch.tensor([3, 200, 130])]
    for ours, theirs in zip(stored.streams_of(asked), model.streams_of(asked), strict=True):
        assert (ours[:, 0] == 0).all()
        assert torch.allclose(ours[:, 1:], theirs[:, 1:], rtol=2e-3, atol=2e-2)


def _report(change: Callable[[dict[str, Any]], None] = lambda layer: None) -> dict[str, Any]:
    layers = [
        {
            "hook_name": name,
            "fvu": 0.14,
            "l0": 32.0,
            "dead_percent": 0.5,
            "ce_clean": 3.0,
            "ce_sae": 3.2,
            "ce_zero": 11.0,
            "ce_recovered": 0.97,
            "kinds": {"prose": {"fvu": 0.1, "ce_recovered": None}},
        }
        for name in PLAN.hook_names
    ]
    change(layers[3])
    return {"layers": layers}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("fvu", 0.26, "FVU 0.26, target 0.25"),
        ("l0", 41.0, "L0 41, target 40"),
        ("dead_percent", 2.5, "dead % 2.5, target 2"),
        ("ce_recovered", 0.8, "CE recovered 0.8, target 0.9"),
    ],
)
def test_what_misses_its_target_is_said(name: str, value: float, said: str) -> None:
    assert shortfalls(_report()) == []
    report = _report(lambda layer: layer.update({name: value}))
    assert shortfalls(report) == [f"{PLAN.hook_names[3]}: {said}"]


def test_the_median_has_a_target_of_its_own() -> None:
    report = _report()
    for layer in report["layers"]:
        layer["fvu"] = 0.2
    assert shortfalls(report) == ["the median SAE: FVU 0.200, target 0.15"]
    assert len(layer_rows(report)) == 2 + len(PLAN.hook_names)
    assert kind_rows(report)[1][1] == "0.100"


def test_the_readme_is_made_of_what_lies_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "saes" / "one").mkdir(parents=True)
    (tmp_path / "saes" / "one" / "sae_weights.safetensors").write_bytes(b"12")
    described = Path("autoencoders/smollm2/texts.json").read_bytes()
    (tmp_path / "texts.json").write_bytes(described)
    (tmp_path / "evaluation.json").write_text(json.dumps(_report()))
    manifest = shipping.manifest_of(tmp_path)
    assert manifest["weight_bytes"] == 2
    assert manifest["total_bytes"] == 2 + len(described)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    shipping.write_readme(tmp_path)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert f"8 TopK SAEs (k = {PLAN.active}, 1,920 features)" in text
    assert "| prose | anarchism | 15.3-3 |" in text
    monkeypatch.setattr(shipping, "WEIGHT_BYTES", 1)
    with pytest.raises(sg.SaeGraphsError, match="may ship"):
        shipping.manifest_of(tmp_path)


def test_what_ships_is_what_its_manifest_says() -> None:
    out = Path("autoencoders/smollm2")
    if not (out / "saes").is_dir():
        pytest.skip("the SAEs of SmolLM2 come with a clone, and this is none")
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert {str(at.relative_to(out)) for at in shipping.shipped_files(out)} == {*manifest["files"]}
    for name, said in manifest["files"].items():
        assert (out / name).stat().st_size == said["bytes"], name
        assert shipping.checksum(out / name) == said["sha256"], name
    assert manifest["recipe"] == PLAN.to_json()
    assert manifest["weight_bytes"] < WEIGHT_BYTES and manifest["total_bytes"] < SHIPPED_BYTES
    report = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    readme = (out / "README.md").read_text(encoding="utf-8")
    assert all(f"- {missed}\n" in readme for missed in shortfalls(report))


def test_a_tensor_is_its_own_key() -> None:
    row: Tensor = torch.tensor([1, 2, 3])
    assert shipping._key(row) == shipping._key(row.int())
