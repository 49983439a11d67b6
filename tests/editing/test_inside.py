"""What an edit does inside, beside full passes with plain hooks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sae_graphs as sg
from sae_graphs.editing.inside import inside
from sae_graphs.editing.inside_plot import activations
from sae_graphs.editing.inside_report import inside_files, summary
from sae_graphs.errors import SaeGraphsError
from sae_graphs.interventions import ZERO
from sae_graphs.model.language_model import LanguageModel
from tests.support.models import CORPUS

GIVEN: dict[str, Any] = {"subject": "cat", "prompt": "the {} sat on", "target": " mat", "layer": 1}
GIVEN |= {"prefixes": 0, "steps": 12, "rate": 1.0, "tokens": 120, "texts": [CORPUS] * 9}


@pytest.fixture
def edit(tiny: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> sg.Edit:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return sg.edit(tiny, **GIVEN)


def key_of(tiny: Any, ids: tuple[int, ...], at: int, stream: torch.Tensor | None) -> torch.Tensor:
    """What c_proj of block 1 reads at a token in a whole pass; the block's input may be another."""
    heard: list[torch.Tensor] = []
    block = tiny.model.blocks[1]
    handles = [block.mlp.out.hook_in.register_forward_hook(lambda m, a, out: heard.append(out))]
    if stream is not None:
        handles.append(block.register_forward_pre_hook(lambda m, a: (stream[None], *a[1:])))
    try:
        tiny.model(torch.tensor([ids]), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return heard[0][0, at]


def test_key_and_value_are_those_of_whole_passes(tiny: Any, edit: sg.Edit) -> None:
    found = inside(tiny, edit, nodes=6, intervention=ZERO)
    run = tiny.run("the cat sat on")
    at, left = 2, torch.tensor(edit.left)
    assert run.tokens[at] == " cat"
    match = float(key_of(tiny, run.token_ids, at, None) @ left)
    assert found.match == pytest.approx(match) and match == pytest.approx(1.0)  # no prefixes
    layer = tiny.stack.layers[1]
    stream = run.inputs[1]
    acts = layer.encode(stream)
    assert found.key and {it.feature.layer for it in found.key} == {layer.label}
    for part in found.key[:4]:
        index = part.feature.index
        assert part.feature.position == at and part.activation == float(acts[at, index])
        kept = acts.clone()
        kept[at, index] = 0
        other = stream - (layer.decode(acts, stream) - layer.decode(kept, stream))
        expected = float(key_of(tiny, run.token_ids, at, other) @ left) - match
        assert part.effect == pytest.approx(expected, rel=1e-6, abs=1e-9)
    sizes = [abs(it.effect) for it in found.key]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > 1e-3
    with edit.applied(tiny):
        after = tiny.run("the cat sat on").inputs[2][at]
    clean = run.inputs[2][at]
    layer = tiny.stack.layers[2]
    one, two = (layer.encode(row[None])[0] for row in (clean, after))
    for moved in found.value[:4]:
        index = moved.feature.index
        assert (moved.before, moved.after) == (float(one[index]), float(two[index]))
    gained = after - clean
    torch.testing.assert_close(gained, torch.tensor(edit.right), rtol=1e-6, atol=1e-8)
    decoded = [layer.sae.decode(acts) for acts in (one, two)]
    pairs = zip((clean, after), decoded, strict=True)
    misses = [float((row - seen).norm() / row.norm()) for row, seen in pairs]
    assert found.missed == pytest.approx(misses)


def test_the_graphs_are_those_of_the_model_without_it_and_with_it(tiny: Any, edit: sg.Edit) -> None:
    found = inside(tiny, edit, nodes=6, intervention=ZERO)
    clean = sg.causal_graph(tiny, "the cat sat on", nodes=6, intervention=ZERO)
    assert [node.feature for node in found.before] == [node.feature for node in clean]
    with edit.applied(tiny):
        changed = sg.causal_graph(tiny, "the cat sat on", nodes=6, intervention=ZERO)
    assert [edge.effect for edge in found.after.edges] == [it.effect for it in changed.edges]
    assert found.after.run.outputs[0].token == edit.after.next_tokens[0][0]
    assert found.carries and found.carried
    with edit.applied(tiny):
        acts = tiny.clean_run("the cat sat on")
    for moved in found.carries:
        layer = next(it for it in tiny.stack.layers if it.label == moved.feature.layer)
        values = layer.encode(tiny.replay.stream_at(acts, layer.point))
        assert moved.after == float(values[moved.feature.position, moved.feature.index])
    for axes, those in zip(activations(found).axes, (found.carried, found.carries), strict=True):
        befores, afters = (np.asarray(line.get_xdata()).tolist() for line in axes.lines[:2])
        assert sorted(zip(befores, afters, strict=True)) == sorted(
            (it.before, it.after) for it in those
        )
        formatter: Any = axes.yaxis.get_major_formatter()
        labels = formatter.seq
        assert any(str(those[0].feature) in it and " at " in it for it in labels), labels
    files = inside_files(found)
    assert "inside-activations.svg" in files["inside.md"].decode()
    assert {"inside.html", "inside.md", "inside-before.svg", "inside-after.png"} <= set(files)
    assert summary(found) in files["inside.md"].decode().replace("\\", "")


def test_a_model_without_saes_shows_nothing(tiny: Any, edit: sg.Edit) -> None:
    alone: Any = LanguageModel(tiny.model)
    with pytest.raises(SaeGraphsError, match="is no model with SAEs"):
        inside(alone, edit)
