"""Edits worked out by hand, and beside plain transformers models whose weights are changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import sae_graphs as sg
from sae_graphs.bars import Bar
from sae_graphs.editing import edit as edits
from sae_graphs.editing.covariance import covariance_of, text_of
from sae_graphs.editing.projection import projection_of
from sae_graphs.editing.prompts import Rows, placed, prefixes_of, target_of
from sae_graphs.editing.settings import Method
from sae_graphs.editing.update import rank_one, solvable
from sae_graphs.errors import SaeGraphsError
from sae_graphs.model.language_model import LanguageModel
from tests.support.editable import OUT, TEXT, editable
from tests.support.edits import ASKED, LITTLE, SAID
from tests.support.models import ARCHITECTURES, load_bridge
from tests.support.slow import first

# What each architecture calls the matrix in block 1, and whether it is stored `[F, D]`.
NAMES = {
    "gpt2": ("transformer.h.1.mlp.c_proj.weight", True),
    "llama": ("model.layers.1.mlp.down_proj.weight", False),
    "neox": ("gpt_neox.layers.1.mlp.dense_4h_to_h.weight", False),
    "gemma2": ("model.layers.1.mlp.down_proj.weight", False),
    "qwen3": ("model.layers.1.mlp.down_proj.weight", False),
    "gemma3": ("model.layers.1.mlp.down_proj.weight", False),
}


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


TAKEN = "covariance of block 1: 64 x 64, 1MiB, over the texts given"


def by_hand(model: LanguageModel) -> sg.Edit:
    """One step of Adam, as long in every coordinate as its rate: half a unit."""
    rate = 0.5 / (10 / 3) ** 0.5  # in the root mean square of [1, 0, 3]
    given: dict[str, Any] = {"subject": "a", "prompt": "{}b", "target": "c", "layer": 0}
    given |= {"prefixes": 0, "steps": 1, "rate": rate, "kl": 0.0, "stop": 1.0}
    return sg.edit(model, **given, texts=[TEXT])


# -- literals --------------------------------------------------------------------------------------


def test_key_covariance_value_and_update_are_as_by_hand() -> None:
    model = editable()
    covariance = covariance_of(model, 0, text_of(model, [TEXT]), 100)
    assert covariance.tokens == 4  # b, c, a, b
    expected = [[0.5, 0.25, 0.25], [0.25, 2.25, 0.25], [0.25, 0.25, 0.25]]
    torch.testing.assert_close(covariance.matrix, torch.tensor(expected, dtype=torch.float64))
    rows = Rows(model, projection_of(model.model, 0), [placed(model, "ab", "a", "subject-last")])
    assert rows.keys.tolist() == [[1, 0, 0]] and rows.values.tolist() == [[1, 0, 3]]
    edit = by_hand(model)
    np.testing.assert_allclose(edit.left, [1, 0, -1], atol=1e-6)  # [4, 0, -4] / 4
    np.testing.assert_allclose(edit.right, [-0.5, -0.5, 0.5], atol=1e-6)  # v* - W k*
    assert edit.shape == (3, 3) and edit.target == "c" and edit.warnings == ()
    with edit.applied(model):
        matrix = projection_of(model.model, 0).weights.matrix.clone()
        logits = model.run("ab").logits[-1]
    edited = [[0.5, 0, 2.5], [-0.5, 1, 0.5], [3.5, 0, 0.5]]
    np.testing.assert_allclose(matrix, edited, atol=1e-6)
    np.testing.assert_allclose(matrix @ rows.keys[0], [0.5, -0.5, 3.5], atol=1e-6)  # v*
    # b: [0, 2, 0] + 2 [0, 1, 0]; a before it: [1, 0, 0] + v*
    np.testing.assert_allclose(logits, [0, 1.5, 3.5, 3.5], atol=1e-6)


def test_what_is_orthogonal_to_the_key_in_the_covariance_stays() -> None:
    model = editable()
    weights = projection_of(model.model, 0).weights
    clean = weights.matrix.clone()
    with by_hand(model).applied(model):
        for other in ([1.0, 5.0, 1.0], [0.0, 2.0, 0.0]):  # C^-1 k* = [4, 0, -4]
            row = torch.tensor(other, dtype=torch.float64)
            np.testing.assert_allclose(weights.matrix @ row, clean @ row, atol=1e-6)
    assert torch.equal(weights.matrix, clean) and clean.tolist() == OUT


@pytest.mark.parametrize(
    ("method", "left", "key"),
    [("rome", [2 / 3, 1 / 3, 0], [1, 1, 0]), ("rome-mixed-keys", [1, 0.5, 0], [1, 0, 0])],
)
def test_a_prefix_with_another_key_is_as_by_hand(
    method: Method, left: list[float], key: list[float]
) -> None:
    model = editable(attends_first=True)
    taken = covariance_of(model, 1, text_of(model, [TEXT]), 100)
    taken = replace(taken, matrix=torch.diag(torch.tensor([1.0, 2.0, 4.0])))
    # a reads [1, 0, 0] alone and [1, 2, 0] behind b: in the mean [1, 1, 0], which gives [1, 1, 3]
    given: dict[str, Any] = {"subject": "a", "prompt": "{}b", "target": "c", "layer": 1}
    given |= {"steps": 1, "rate": 0.5 / (11 / 3) ** 0.5, "kl": 0.0, "stop": 1.0}
    edit = sg.edit(model, **given, method=method, prefixes=1, texts=["Xbbbb."], covariance=taken)
    np.testing.assert_allclose(edit.right, [-0.5, -0.5, 0.5], atol=1e-6)  # half a unit each
    np.testing.assert_allclose(edit.left, left, atol=1e-6)
    weights = projection_of(model.model, 1).weights
    row = torch.tensor(key, dtype=torch.float64)
    clean = weights.matrix @ row
    with edit.applied(model):
        np.testing.assert_allclose(weights.matrix @ row - clean, edit.right, atol=1e-6)
        if method == "rome":
            np.testing.assert_allclose(weights.matrix @ row, [0.5, 0.5, 3.5], atol=1e-6)  # v*
    assert edit.about["prompts"] == 2
    assert edit.about["covariance"]["condition"] == pytest.approx(4.0)


def test_one_step_writes_and_is_counted() -> None:
    edit = by_hand(editable())
    assert edit.right.any() and len(edit.surprisal) == 2  # before it, and after


def test_the_first_form_of_rome_divides_by_the_key_without_prefix() -> None:
    covariance = solvable(torch.diag(torch.tensor([1.0, 4.0])), None)
    mean, bare = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 2.0])
    change = torch.tensor([1.0, 0.0])
    one = rank_one(covariance, mean, change)
    assert one.left.tolist() == [0.5, 0.25]  # [1, 0.5] / 2
    mixed = rank_one(covariance, mean, change, divisor_key=bare)
    assert mixed.left.tolist() == [0.25, 0.125]  # [1, 0.5] / 4
    assert float(mixed.left @ bare.double()) == 1.0 and float(mixed.left @ mean.double()) == 0.5


# -- beside plain models ---------------------------------------------------------------------------


def plain_model(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float64, attn_implementation="eager"
    ).eval()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_edit_is_the_weight_changed_by_hand(
    architecture: str, bridge_of: Any, model_folder: Callable[[str], Path]
) -> None:
    model = LanguageModel(bridge_of(architecture, "float64"))
    edit = sg.edit(model, **ASKED, **LITTLE)
    run = model.run(SAID)
    plain = plain_model(model_folder(architecture))
    name, stored_turned = NAMES[architecture]
    held = dict(plain.named_parameters())[name]
    with edit.applied(plain):  # found by its digest
        applied_there = plain(torch.tensor([run.token_ids])).logits[0]
    unchanged = held.detach().clone()
    change = np.outer(edit.right, edit.left)
    held += torch.tensor(change.T if stored_turned else change)
    expected = plain(torch.tensor([run.token_ids])).logits[0]
    with edit.applied(model):
        edited = model.run(SAID)
        rows = Rows(
            model,
            projection_of(model.model, 1),
            [placed(model, SAID, "cat", "subject-last")],
        )
    torch.testing.assert_close(edited.logits, expected, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(applied_there, expected, rtol=1e-8, atol=1e-8)
    assert float((expected - run.logits).abs().max()) > 1e-3
    after = model.run(SAID)
    assert torch.equal(after.logits, run.logits)  # undone
    assert not torch.equal(unchanged, held)
    clean = Rows(
        model,
        projection_of(model.model, 1),
        [placed(model, SAID, "cat", "subject-last")],
    )
    gained = rows.values[0] - clean.values[0]  # W k* = v*, the bias aside
    np.testing.assert_allclose(gained, edit.right, atol=1e-6)


@pytest.mark.parametrize("architecture", first(2, ("llama", "gpt2", "qwen3")))
def test_processed_weights_are_changed_where_the_model_reads_them(
    architecture: str, model_folder: Callable[[str], Path]
) -> None:
    bridge = load_bridge(model_folder(architecture), torch.float32)
    bridge.enable_compatibility_mode(disable_warnings=True)
    model = LanguageModel(bridge)
    edit = sg.edit(model, **ASKED, **LITTLE)
    where = [placed(model, SAID, "cat", "subject-last")]
    clean = Rows(model, projection_of(bridge, 1), where)
    with edit.applied(model):
        rows = Rows(model, projection_of(bridge, 1), where)
    gained = (rows.values - clean.values)[0]
    np.testing.assert_allclose(gained, edit.right, rtol=1e-4, atol=1e-5 * float(gained.norm()))
    again = Rows(model, projection_of(bridge, 1), where)
    assert torch.equal(again.values, clean.values)


def test_the_prompts_run_together_are_what_each_is_alone(bridge_of: Any) -> None:
    model = LanguageModel(bridge_of("gpt2", "float64"))
    texts = [SAID, f"the dog ran. {SAID}"]
    where = [placed(model, text, "cat", "subject-last") for text in texts]
    rows = Rows(model, projection_of(model.model, 1), where)
    change = torch.linspace(-1, 1, 16, dtype=torch.float64)
    together = rows.logits(change)
    for number, each in enumerate(where):
        alone = Rows(model, projection_of(model.model, 1), [each]).logits(change)
        torch.testing.assert_close(together[number], alone[0], rtol=1e-9, atol=1e-9)
        clean = model.run(each.ids).logits[-1]
        torch.testing.assert_close(rows.logits(0 * change)[number], clean, rtol=1e-9, atol=1e-9)
        assert float((alone[0] - clean).abs().max()) > 1e-3


def test_the_model_says_then_what_was_found(bridge_of: Any) -> None:
    model = LanguageModel(bridge_of("gpt2", "float64"))
    edit = sg.edit(model, **ASKED, **{**LITTLE, "steps": 8})
    assert len(edit.surprisal) == 9 and edit.surprisal[-1] < edit.surprisal[0] - 0.5
    np.testing.assert_allclose(edit.before.probability, np.exp(-edit.surprisal[0]), rtol=1e-9)
    assert edit.after.probability > 1.5 * edit.before.probability  # other tokens' keys are near
    bounded = sg.edit(model, **ASKED, **{**LITTLE, "steps": 8, "bound": 0.1})
    assert bounded.about["change_over_output"] == pytest.approx(0.1)
    assert "reached its bound, 0.1 times" in bounded.warnings[-1]
    kept = sg.edit(model, **ASKED, **{**LITTLE, "steps": 8, "kl": 100.0})
    assert kept.about["divergence_of_is_a"] < 0.2 * edit.about["divergence_of_is_a"]


def test_a_search_that_fails_is_made_again_at_twice_the_rate(bridge_of: Any) -> None:
    model = LanguageModel(bridge_of("gpt2", "float64"))
    drawn: dict[str, list[tuple[int, int | None]]] = {}
    bar = Bar(lambda what, *far: drawn.setdefault(what, []).append(far), "finding the value")
    slow = sg.edit(model, **ASKED, **{**LITTLE, "rate": 1e-4}, progress=bar)
    assert slow.about["rate"] == pytest.approx(8e-4)  # the last of four, which says it most
    again = [f"finding the value, search {n} of 4, at twice the rate" for n in (2, 3, 4)]
    assert list(drawn) == [TAKEN, "finding the value", *again]
    assert drawn.pop(TAKEN) == [(0, None), (120, 120)]  # tokens
    assert all(far == [(0, None), (0, 1), (1, 1), (1, 1)] for far in drawn.values())  # steps
    once = sg.edit(model, **ASKED, **{**LITTLE, "rate": 8e-4})
    assert slow.surprisal[0] == once.surprisal[0] > once.surprisal[-1]


def test_where_nothing_is_written_that_is_said(bridge_of: Any) -> None:
    far = {**ASKED, "prompt": "the {} sat on the old mat and the"}
    edit = sg.edit(LanguageModel(bridge_of("gemma2", "float64")), **far, **LITTLE)
    assert not edit.right.any() and "does not reach the answer" in edit.warnings[-1]
    model = LanguageModel(bridge_of("gpt2", "float64"))
    known = sg.edit(model, **ASKED, **{**LITTLE, "stop": 99.0})
    assert known.warnings == ("the model says the target already: nothing was changed",)


# -- what rounding takes ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_refused_for_what_it_is(
    dtype: str, model_folder: Callable[[str], Path]
) -> None:
    model = LanguageModel(load_bridge(model_folder("llama"), getattr(torch, dtype)))
    with pytest.raises(SaeGraphsError, match=f"are {dtype}, in which .* load the model in float32"):
        sg.edit(model, **ASKED, **LITTLE)


def test_what_rounding_takes_of_an_update_is_said(
    bridge_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = LanguageModel(bridge_of("gpt2", "float64"))
    far = {**LITTLE, "bound": 99.0}
    assert sg.edit(model, **ASKED, **far).warnings == ()
    exact = edits.edited

    def coarse(matrix: torch.Tensor, edit: sg.Edit) -> torch.Tensor:
        return matrix + (exact(matrix, edit) - matrix).to(torch.float8_e4m3fn).to(matrix.dtype)

    monkeypatch.setattr(edits, "edited", coarse)
    told = sg.edit(model, **ASKED, **far).warnings
    assert len(told) == 1 and "the key gives the value but for " in told[0]


# -- what has no one projection of its own ---------------------------------------------------------


def test_a_projection_of_two_blocks_is_refused() -> None:
    model = editable()
    model.model.blocks[1].mlp.W_out = model.model.blocks[0].mlp.W_out
    with pytest.raises(SaeGraphsError, match="blocks 0 and 1 have one output projection"):
        projection_of(model.model, 1)


def test_a_mixture_of_experts_is_refused() -> None:
    model = editable()
    experts = torch.nn.Module()
    experts.experts = torch.nn.ModuleList([model.model.blocks[0].mlp, model.model.blocks[1].mlp])
    model.model.blocks[1].mlp = experts
    with pytest.raises(SaeGraphsError, match="block 1 has not one output projection, as in a mix"):
        projection_of(model.model, 1)


# -- wrong input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"subject": "fox", "prompt": "the cat sat on"}, "is not in the prompt"),
        ({"prompt": "{} and {}"}, "more than once"),
        ({"subject": " "}, "the subject is ' '"),
        ({"target": ""}, "the target is ''"),
        ({"layer": 9}, "there is no layer 9; expected a block of the model, 0 to 2"),
        ({"token": "first"}, "token 'first': expected one of subject-first"),
        ({"method": "memit"}, "method 'memit'"),
        ({"steps": 0}, "steps is 0; expected 1 or more"),
        ({"rate": 0}, "rate is 0; expected a number, more than 0"),
        ({"stepz": 3}, "did you mean steps"),
        ({"token": "after-subject", "prompt": "the {}"}, "nothing comes after the subject"),
        ({"texts": []}, "has 0 tokens"),
        ({"prefixes": 3}, "has 0 sentences"),
    ],
)
def test_wrong_input_is_one_line(bridge_of: Any, given: dict[str, Any], line: str) -> None:
    model = LanguageModel(bridge_of("gpt2", "float64"))
    with pytest.raises(SaeGraphsError, match=line) as told:
        sg.edit(model, **{**ASKED, **LITTLE, **given})
    assert "\n" not in str(told.value)


def test_the_first_of_several_tokens_is_written_and_said(bridge_of: Any) -> None:
    model = LanguageModel(bridge_of("gpt2", "float64"))
    found = target_of(model, "the cat sat on the", " mat and")
    assert model.token_string(found.token_id) == " mat"
    assert found.note == 'the target " mat and" is 2 tokens; the first, " mat", was written'
    assert target_of(model, "the cat sat on the", " mat").note == ""


def test_prefixes_are_drawn_by_the_seed_and_say_nothing_of_the_fact(bridge_of: Any) -> None:
    model = LanguageModel(bridge_of("gpt2", "float64"))
    texts = [
        f"The {one} sat on the {two}. And so." for one in ("cat", "dog", "mat") for two in "xyz"
    ]
    some = prefixes_of(model, texts, 4, seed=0, without=("cat", " x"))
    assert len(set(some)) == 4 and not any("cat" in it or "x" in it for it in some)
    assert some == prefixes_of(model, texts, 4, seed=0, without=("cat", " x"))
    assert some != prefixes_of(model, texts, 4, seed=1, without=("cat", " x"))


@pytest.mark.parametrize(
    ("prompt", "at"),
    [
        ("the {} and the cat sat on", 1),
        ("the cat and the {} sat on", 4),
        ("the cat and the cat sat on", 4),
    ],
)
def test_a_fact_is_written_where_the_prompt_has_it(bridge_of: Any, prompt: str, at: int) -> None:
    model = LanguageModel(bridge_of("gpt2", "float64"))
    asked = "the cat and the cat sat on"
    words = [model.token_string(it).strip() for it in model.tokenize(asked)]
    offset = len(words) - 7  # BOS, where there is one
    assert words[offset + 1] == words[offset + 4] == "cat"
    edit = sg.edit(model, **{**ASKED, "prompt": prompt}, **{**LITTLE, "bound": 99.0})
    assert edit.about["token"] == offset + at and edit.asked == asked
    assert len(edit.warnings) == 1
    assert f"comes 2 times; taken is the one, token {offset + at}" in edit.warnings[0]


def test_a_template_takes_whole_words_first() -> None:
    assert edits.template_of("the cat met cats", "cat") == "the {} met cats"
    assert edits.template_of("two cats", "cat") == "two {}s"
