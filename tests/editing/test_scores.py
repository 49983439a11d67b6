"""The metrics of edits, worked out by hand; case files; how a model is heard."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sae_graphs.editing import many
from sae_graphs.editing.cases_file import FactCase, Retained, bundled, read_cases
from sae_graphs.editing.covariance import covariance_of, text_of
from sae_graphs.editing.edit import prepared
from sae_graphs.editing.fine_tuning import fine_tuned
from sae_graphs.editing.generate import continued, next_logits
from sae_graphs.editing.hearing import hear, other_text, questions_of, surprisal
from sae_graphs.editing.many_report import edits_files, rows_of, summary
from sae_graphs.editing.projection import projection_of
from sae_graphs.editing.scores import (
    Asked,
    Heard,
    Kept,
    Scored,
    entropy,
    fluency_of,
    measured,
    summarised,
    unedited,
)
from sae_graphs.editing.scoring import Scorer
from sae_graphs.editing.settings import WAYS, EditSettings, Tuning
from sae_graphs.errors import GraphFileError, SaeGraphsError
from sae_graphs.model.language_model import LanguageModel
from sae_graphs.schema import record_bytes
from tests.support.models import CORPUS

LITTLE = EditSettings(layer=1, prefixes=0, steps=4, rate=0.5, tokens=120, stop=0.0)
CASE = FactCase(
    7,
    "cat",
    "the {} sat on",
    " mat",
    " red",
    paraphrases=("and (the cat ran to", "the cat slept on"),
    neighbours=("the dog sat on",),
    generation=("the cat", "the dog"),
    retained=(Retained("while the cat", " slept"),),
)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def scored(number: int = 0, **after: Any) -> Scored:
    before = Heard((Asked(0.1, 0.7),), (), (Asked(0.2, 0.6),), (Kept(0.9, True),), 2.0, 1.0)
    return Scored(number, "the cat sat on", " mat", " red", before, Heard(**after), 0.5)


# -- by hand ---------------------------------------------------------------------------------------


def test_the_measures_of_one_case() -> None:
    case = scored(
        rewrite=(Asked(0.8, 0.1),),
        paraphrase=(Asked(0.5, 0.2), Asked(0.1, 0.4)),
        neighbour=(Asked(0.2, 0.7),),
        retained=(Kept(0.3, False),),
        fluency=1.5,
        surprisal=1.5,
    )
    found = measured(case.before, case.after)
    expected = {
        **{"ES": 1.0, "EM": 0.7, "PS": 0.5, "PM": 0.0, "NS": 1.0, "NM": 0.5},
        **{"fluency": 1.5, "retention": 0.0, "perplexity": math.exp(0.5)},
    }
    assert found == pytest.approx(expected)
    nothing = measured(case.before, Heard((Asked(0.5, 0.5),), retained=(Kept(0, False),)))
    assert nothing["ES"] == 0 and math.isnan(nothing["PS"]) and math.isnan(nothing["perplexity"])


def test_s_is_the_harmonic_mean_of_the_means() -> None:
    good: dict[str, Any] = {"rewrite": (Asked(0.9, 0.1),), "paraphrase": (Asked(0.9, 0.1),)}
    good |= {"neighbour": (Asked(0.1, 0.9),), "retained": (Kept(0.9, True),)}
    poor = {**good, "paraphrase": (Asked(0.1, 0.9),)}
    found = summarised([scored(0, **good), scored(1, **poor), scored(2, **good), scored(3, **poor)])
    assert found["PS"].mean == 0.5 and found["S"].mean == pytest.approx(3 / (1 + 2 + 1))
    low, high = found["PS"].low, found["PS"].high
    assert low is not None and high is not None and 0 <= low < 0.5 < high <= 1
    assert found["ES"] == (1.0, 1.0, 1.0, 4) and found["retention"].mean == 1.0
    assert summarised([scored(0, **good)])["S"] == (pytest.approx(1.0), None, None, 1)
    bad = summarised([scored(0, **{**good, "rewrite": (Asked(0.1, 0.9),)})])
    assert bad["S"].mean == 0.0
    before = unedited([scored(0, **good)])
    assert before["ES"].mean == 0 and before["NS"].mean == 1 and before["perplexity"].mean == 1


def test_means_say_of_how_many_cases_and_subjects_are_drawn_whole() -> None:
    good: dict[str, Any] = {"rewrite": (Asked(0.9, 0.1),), "retained": (Kept(0.9, True),)}
    good |= {"paraphrase": (Asked(0.9, 0.1),), "neighbour": (Asked(0.1, 0.9),)}
    bad = {**good, "rewrite": (Asked(0.1, 0.9),)}
    none = {**good, "paraphrase": ()}
    cases = [scored(0, **good), scored(1, **none), scored(2, **bad), scored(3, **bad)]
    found = summarised(cases)
    assert [found[it].n for it in ("ES", "PS", "NS", "S", "fluency")] == [4, 3, 4, 3, 0]
    alone = summarised(cases * 8)
    rows = [replace(it, case_id=at) for at, it in enumerate(cases * 8)]
    apart = summarised(rows)["ES"]
    whole = summarised([replace(it, subject=str(it.case_id % 4)) for it in rows])["ES"]
    assert apart.mean == whole.mean == alone["ES"].mean == 0.5
    assert None not in (apart.low, apart.high, whole.low, whole.high)
    assert whole.high - whole.low > 1.5 * (apart.high - apart.low)  # type: ignore[operator]
    pair = [replace(it, subject="one" if it.case_id else "other") for it in cases]
    assert summarised(pair)["ES"] == (0.5, None, None, 4)  # two subjects


def test_fluency_is_the_weighted_entropy_of_n_grams() -> None:
    assert entropy([1, 2, 1, 2, 1], 2) == pytest.approx(1.0)  # 12, 21, 12, 21
    assert entropy([1, 1, 1, 1], 3) == 0.0
    four = [1, 2, 3, 4]  # three bigrams, two trigrams
    assert fluency_of([four]) == pytest.approx((2 / 3 * math.log2(3) + 4 / 3 * 1) / 2)
    assert fluency_of([[1, 2]]) is None and fluency_of([four, [1, 1, 1]]) == pytest.approx(
        (2 / 3 * math.log2(3) + 4 / 3) / 4
    )


def test_edits_come_back_from_json_and_are_shown(tmp_path: Path) -> None:
    case = scored(rewrite=(Asked(0.8, 0.1),), retained=(Kept(0.3, False),))
    left = many.LeftOut(3, "an <b>odd</b> \x1bprompt", "it does not fit")
    edits = many.Edits("tiny", "mine.jsonl", "rome", 1, (case,), (left,), {"steps": 3})
    (tmp_path / many.FILE_NAME).write_bytes(record_bytes(edits))
    assert many.load(tmp_path) == edits
    page = edits_files(edits)["edits.html"].decode()
    assert "<b>odd</b>" not in page and "&lt;b&gt;odd" in page and "it does not fit" in page
    assert "\x1b" not in page and "\\x1bprompt" in page
    assert [row[0] for row in rows_of(edits)][:2] == ["S", "ES"]
    assert "1 fact written by rome at block 1" in summary(edits) and "ES 1.000" in summary(edits)
    (tmp_path / many.FILE_NAME).write_text("{}")
    with pytest.raises(GraphFileError, match="holds no edits"):
        many.load(tmp_path)


# -- case files ------------------------------------------------------------------------------------


def row(**changed: Any) -> dict[str, Any]:
    asked: dict[str, Any] = {"prompt": "{} is in", "subject": "Rome", "relation_id": "P1"}
    asked |= {"target_new": {"str": "Spain", "id": "Q1"}, "target_true": {"str": "Italy"}}
    return {
        "case_id": 4,
        "pararel_idx": 3,
        "requested_rewrite": {**asked, **changed.pop("asked", {})},
        "paraphrase_prompts": ["Where is Rome? In"],
        "neighborhood_prompts": ["Milan is in"],
        "attribute_prompts": ["Madrid is in"],
        "generation_prompts": ["Rome is"],
        "retention_prompts": [{"prompt": "Rome has a river, the", "target": "Tiber"}],
        **changed,
    }


def test_cases_are_read_in_counterfacts_fields(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text(json.dumps(row()) + "\n\n" + json.dumps(row(case_id=5)) + "\n")
    one, two = read_cases(file)
    assert (one.case_id, one.new, one.true, one.asked) == (4, " Spain", " Italy", "Rome is in")
    assert one.retained == (Retained("Rome has a river, the", " Tiber"),)
    assert one.paraphrases == ("Where is Rome? In",) and two.neighbours == ("Milan is in",)
    file.write_text(json.dumps([row(), row(case_id=9)]))  # as CounterFact's own file
    assert [case.case_id for case in read_cases(file)] == [4, 9]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "holds no case"),
        ("{", "line 1 is no JSON"),
        ("[", "is no JSON"),
        ("[3]", "case 1: requested_rewrite is missing"),
        (json.dumps(row(asked={"prompt": "is in"})), "needs {} once"),
        (json.dumps(row(asked={"subject": ""})), "subject is ''"),
        (json.dumps(row(asked={"target_new": "Spain"})), "target_new is 'Spain'"),
        (json.dumps(row(asked={"target_new": {"str": "Italy"}})), "give two different ones"),
        (json.dumps(row(paraphrase_prompts="Rome")), "expected a list of texts"),
        (json.dumps(row(retention_prompts=["Rome"])), "no list of prompt and target"),
        (json.dumps(row(case_id="a")), "case_id is 'a'"),
        (json.dumps(row()) + "\n" + json.dumps(row()), "has a case_id twice"),
    ],
)
def test_wrong_case_files_are_one_line(tmp_path: Path, text: str, line: str) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text(text)
    with pytest.raises(SaeGraphsError) as told:
        read_cases(file)
    assert line in str(told.value) and "\n" not in str(told.value)
    with pytest.raises(SaeGraphsError, match="cannot read nowhere"):
        read_cases("nowhere")


def test_the_bundled_cases_are_whole() -> None:
    assert "demo" in bundled()
    cases = read_cases("demo")
    assert len(cases) >= 100
    development = read_cases("demo-development")
    assert len(development) == 20
    assert not {it.subject for it in development} & {it.subject for it in cases}
    assert not {it.case_id for it in development} & {it.case_id for it in cases}
    for case in (*cases, *development):
        assert len(case.paraphrases) >= 2 and case.neighbours and case.retained, case.case_id
        assert all(case.subject in prompt for prompt in (*case.paraphrases, *case.generation))
        assert not any(case.subject in prompt for prompt in case.neighbours)
        assert case.asked not in case.paraphrases


# -- how a model is heard --------------------------------------------------------------------------


@pytest.fixture
def model(bridge_of: Any) -> LanguageModel:
    return LanguageModel(bridge_of("gpt2", "float64"))


def test_a_case_is_heard_as_by_plain_passes(model: LanguageModel) -> None:
    asked = questions_of(model, CASE)
    other = other_text(model, [CORPUS] * 4)
    said = hear(model, asked, other)

    def chances(prompt: str) -> torch.Tensor:
        return model.run(prompt).logits[-1].softmax(-1)

    ids = {name: model.tokenize(name, prepend_bos=False)[0] for name in (" mat", " red", " slept")}
    for prompts, found in (
        ((CASE.asked,), said.heard.rewrite),
        (CASE.paraphrases, said.heard.paraphrase),
        (CASE.neighbours, said.heard.neighbour),
    ):
        for prompt, pair in zip(prompts, found, strict=True):
            expected = chances(prompt)[[ids[" mat"], ids[" red"]]]
            np.testing.assert_allclose([pair.new, pair.true], expected, rtol=1e-9)
    (kept,) = said.heard.retained
    slept = chances("while the cat")
    assert kept.probability == pytest.approx(float(slept[ids[" slept"]]))
    assert kept.leads == (int(slept.argmax()) == ids[" slept"])
    total, count = 0.0, 0
    for rows in other:
        for tokens in rows.tolist():
            logits = model.run(tokens).logits.log_softmax(-1)
            total -= float(sum(logits[at, tokens[at + 1]] for at in range(len(tokens) - 1)))
            count += len(tokens) - 1
    assert surprisal(model, other) == pytest.approx(total / count, rel=1e-6)
    assert said.heard.surprisal == pytest.approx(total / count, rel=1e-6)


def test_objects_that_begin_with_one_token_are_told(model: LanguageModel) -> None:
    with pytest.raises(SaeGraphsError, match='begin with the same token, " mat"'):
        questions_of(model, FactCase(1, "cat", "the {} sat on", " mat and", " mat"))


def test_perplexity_is_of_text_that_no_covariance_is_taken_over(model: LanguageModel) -> None:
    pieces = [CORPUS] * 9 + ["a red mat " * 40]
    text = text_of(model, pieces)
    covariance = covariance_of(model, 1, text, 120)
    scorer = Scorer(model, LITTLE, text, covariance)
    other = other_text(model, pieces[9:])
    assert [it.tolist() for it in scorer.other] == [it.tolist() for it in other] != []
    assert covariance.tokens == covariance_of(model, 1, text_of(model, pieces[:9]), 120).tokens


def test_text_is_written_on_as_by_single_passes(model: LanguageModel) -> None:
    prompts = [model.tokenize("the cat"), model.tokenize("the dog ran to the")]
    greedy = continued(model, prompts, 5)
    for prompt, found in zip(prompts, greedy, strict=True):
        ids = list(prompt)
        for _ in range(5):
            ids.append(int(model.run(ids).logits[-1].argmax()))
        assert tuple(ids[len(prompt) :]) == found
    drawn = continued(model, prompts, 5, top_k=5, seed=3)
    assert drawn == continued(model, prompts, 5, top_k=5, seed=3) != greedy
    first = next_logits(model, prompts).topk(5).indices.tolist()
    assert all(text[0] in top for text, top in zip(drawn, first, strict=True))
    assert len(continued(model, prompts[:1], 99)[0]) == 32 - len(prompts[0])  # all it reads


def test_every_way_is_scored_and_undone(model: LanguageModel) -> None:
    text = text_of(model, [CORPUS] * 9)
    covariance = covariance_of(model, 1, text, 120)
    clean = projection_of(model.model, 1).weights.matrix.clone()
    found = {}
    for way in WAYS:
        found[way] = Scorer(model, LITTLE, text, covariance, way=way)(CASE)
        assert torch.equal(projection_of(model.model, 1).weights.matrix, clean)
        one = found[way]
        assert one.after.rewrite[0].new > one.before.rewrite[0].new
        assert one.case_id == 7 and len(one.texts) == 2 and one.texts[0][0] == "the cat"
        assert one.before == found["rome"].before
    # without prefixes the one key is the other
    assert found["rome"].after == found["rome-mixed-keys"].after
    assert found["rome"].after != found["fine-tuning"].after
    with pytest.raises(SaeGraphsError, match="method 'memit': expected one of rome"):
        Scorer(model, LITTLE, text, covariance, way="memit")


@pytest.mark.parametrize("tuning", [Tuning(), Tuning(bound=0.05, rate=0.03)])
def test_fine_tuning_is_that_of_plain_passes_within_its_bound(
    model: LanguageModel, tuning: Tuning
) -> None:
    text = text_of(model, [CORPUS] * 9)
    made = prepared(model, "cat", "the {} sat on", " mat", 1, text, settings=LITTLE)
    found = fine_tuned(made.rows, made.target, LITTLE, tuning)
    weights = projection_of(model.model, 1).weights
    size = float(weights.matrix.square().mean().sqrt())
    bound = tuning.bound * size
    held = weights.tensors[0]
    clean = held.detach().clone()
    adam_of = torch.zeros_like(clean, requires_grad=True)
    adam = torch.optim.Adam([adam_of], lr=tuning.rate * size)
    ids = torch.tensor([made.bare.ids])
    for _ in range(LITTLE.steps):  # the weights changed, and a whole pass
        with torch.enable_grad():
            held.data = (clean + adam_of).detach()
            held.requires_grad_(True)
            logits = model.model(ids, use_cache=False)[0, -1]
            loss = -logits.log_softmax(-1)[made.target]
            (adam_of.grad,) = torch.autograd.grad(loss, [held])
        held.requires_grad_(False)
        held.data = clean.clone()
        adam.step()
        with torch.no_grad():
            adam_of.clamp_(-bound, bound)
    expected = (clean + adam_of.detach()).T
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)
    assert float((found - clean.T).abs().max()) <= bound * (1 + 1e-9)


def test_cases_that_do_not_fit_are_told_and_done_ones_are_kept(tmp_path: Path) -> None:
    cases = [FactCase(number, "cat", "the {} sat", " a", " b") for number in range(3)]
    calls: list[int] = []

    def score(case: FactCase) -> Scored:
        calls.append(case.case_id)
        if case.case_id == 1:
            raise SaeGraphsError("it does not fit")
        return scored(case.case_id, rewrite=(Asked(0.8, 0.1),))

    def run(key: str) -> list[Any]:
        partial = many.EditsPartial(tmp_path)
        partial.patience = 0
        partial.begin(lambda: key, range(3))
        return many.edit_cases(cases, score, partial=partial)

    found = run("one")
    assert [type(it).__name__ for it in found] == ["Scored", "LeftOut", "Scored"]
    assert run("one") == found and calls == [0, 1, 2]
    run("another")
    assert calls == [0, 1, 2, 0, 1, 2]
