"""`sae-graphs edit`: files, words, saved edits in force, wrong input in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import sae_graphs as sg
from sae_graphs.editing import places, where
from sae_graphs.editing.cases_file import FactCase
from sae_graphs.editing.many import EditsPartial, load
from sae_graphs.editing.scores import summarised
from sae_graphs.editing.scoring import Changed, Scorer
from sae_graphs.runs import EDITS, KINDS
from tests.support.commands import Commands
from tests.support.models import CORPUS, save_model_folder

ASKED = ("edit", "the {} sat on", "--subject", "cat", "--target", " mat")
LITTLE = ("--prefixes", "0", "--steps", "3", "--tokens", "120", "--stop", "0", "--rate", "0.5")
NAME = "model-the-cat-sat-on-mat-edit"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_model_folder(tmp_path_factory.mktemp("edit") / "model"))


@pytest.fixture(autouse=True)
def _text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text(f"{CORPUS}\n" * 9)


def test_an_edit_leaves_its_files_and_is_heard_again(
    commands: Commands, model: str, tmp_path: Path
) -> None:
    answer = commands(*ASKED, *LITTLE, "--model", model, "--text", "text.txt")
    assert answer.code == 0, answer.err
    folder = tmp_path / "outputs" / NAME
    names = {"edit.safetensors", "edit.html", "edit.md", "run.json"}
    assert {path.name for path in folder.iterdir()} == names
    record = json.loads((folder / "run.json").read_text())
    assert record["kind"] == "edit" and set(record["files"]) == names
    made = sg.Edit.load(folder)
    assert made.asked == "the cat sat on" and made.target == " mat"
    assert made.about["covariance"]["text"] == "text.txt"
    assert made.after.probability > made.before.probability
    assert (
        '" mat" after "the cat sat on": ' in answer.out and f"wrote outputs/{NAME}/" in answer.out
    )
    assert "covariance of block 0: 64 x 64, 1MiB, over text.txt" in answer.err
    assert "| " in (folder / "edit.md").read_text()
    again = commands("edit", "the cat sat on", "--apply", str(folder), "--model", model)
    assert again.code == 0 and "before: " in again.out and "after: " in again.out
    before, after = (line for line in again.out.splitlines() if "%" in line)
    assert before.split(": ", 1)[1] != after.split(": ", 1)[1]
    once = commands(*ASKED, *LITTLE, "--model", model, "--text", "text.txt", "--layer", "1")
    assert once.code == 0 and sg.Edit.load(folder).layer == 1  # in place of the first


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (("edit",), "no prompt, or an empty one"),
        (("edit", "the cat sat"), "no subject; give both"),
        (("edit", "the cat sat", "--subject", "cat"), "no target; give both"),
        (("edit", "the cat sat", "--subject", "fox", "--target", "x"), "is not in the prompt"),
        ((*ASKED, "--text", "none.txt"), "there is no text file none.txt"),
        ((*ASKED, "--steps", "0"), "steps is 0; expected 1 or more"),
        ((*ASKED, "--apply", "x"), "leave out one of the two"),
        ((*ASKED, "--cases", "demo"), "for one fact; leave out one of the two"),
        ((*ASKED, "--method", "fine-tuning"), "--method fine-tuning is for --cases"),
        ((*ASKED, "--first", "3"), "--first is for --cases"),
        ((*ASKED, "--where"), "--where is for --cases"),
        ((*ASKED, "--saes", "x"), "--saes are looked through by --inside"),
        (("edit", "--cases", "demo", "--inside"), "--inside is for one fact"),
        (("edit", "--cases", "demo", "--where", "--layer", "1"), "leave out --layer, --token"),
        (("edit", "--cases", "none.jsonl", "--where"), "cannot read none.jsonl"),
        ((*ASKED, "--dtype", "bfloat16"), "dtype is bfloat16, in which most of a change"),
        ((*ASKED, "--tuning-bound", "1"), "--tuning-bound is for --method fine-tuning"),
        (
            ("edit", "--cases", "demo", "--method", "fine-tuning", "--tuning-rate", "0"),
            "the rate of fine-tuning is 0.0; expected a number, more than 0",
        ),
        (("edit", "the cat", "--apply", "x", "--layer", "1"), "--layer would do nothing"),
        (("edit", "the cat", "--apply", "x", "--out", "x"), "--out would do nothing"),
        (
            ("edit", "--cases", "demo", "--where", "--method", "rome-mixed-keys"),
            "leave out --layer, --token and --method",
        ),
        (("edit", "--cases", "bare.jsonl", "--where"), "no S without paraphrases and neighbours"),
        (("edit", "--cases", "none.jsonl"), "cannot read none.jsonl"),
        (("edit", "the cat", "--apply", "none.safetensors"), "cannot read none.safetensors"),
        ((*ASKED, "--layer", "7", "--model", "MODEL"), "there is no layer 7; expected a block"),
    ],
)
def test_wrong_input_is_one_line(
    commands: Commands, model: str, tmp_path: Path, given: tuple[str, ...], line: str
) -> None:
    bare = {"prompt": "the {} sat", "subject": "cat"}
    targets = {"target_new": {"str": "mat"}, "target_true": {"str": "red"}}
    (tmp_path / "bare.jsonl").write_text(json.dumps({"requested_rewrite": {**bare, **targets}}))
    answer = commands(*(model if word == "MODEL" else word for word in given))
    assert answer.code == 2 and line in answer.err and answer.err.count("\n") == 1, answer.err


def test_an_edit_of_other_weights_is_one_line(
    commands: Commands, model: str, tmp_path: Path
) -> None:
    assert commands(*ASKED, *LITTLE, "--model", model, "--text", "text.txt").code == 0
    answer = commands("edit", "The Eiffel Tower is in", "--apply", f"outputs/{NAME}")
    assert answer.code == 2 and answer.err.count("\n") == 1, answer.err
    assert "made for other weights than demo has" in answer.err


def test_a_folder_of_another_kind_is_kept(commands: Commands, model: str, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for name in ("run.json", "trace.json"):
        (tmp_path / "mine" / name).write_text("{}")
    answer = commands(*ASKED, *LITTLE, "--model", model, "--text", "text.txt", "--out", "mine")
    assert answer.code == 2
    assert "holds a trace, which this run would replace with an edit" in answer.err


@pytest.mark.parametrize("name", sorted({*KINDS} - {EDITS}))
def test_many_facts_replace_no_other_kind(commands: Commands, tmp_path: Path, name: str) -> None:
    (tmp_path / "mine").mkdir()
    for file in ("run.json", name):
        (tmp_path / "mine" / file).write_text("{}")
    answer = commands("edit", "--cases", "demo", "--out", "mine")
    assert answer.code == 2 and answer.err.count("\n") == 1
    assert f"holds {KINDS[name]}, which this run would replace" in answer.err


def test_many_facts_give_a_table_and_go_on_where_they_stopped(
    commands: Commands, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = []
    for number, subject in enumerate(("cat", "dog", "fox and")):
        asked: dict[str, Any] = {"prompt": "the {} sat on", "subject": subject}
        asked |= {"target_new": {"str": "mat"}, "target_true": {"str": "red"}}
        rows.append({"case_id": number, "requested_rewrite": asked})
        rows[-1] |= {"paraphrase_prompts": [f"and the {subject} sat"]}
        rows[-1] |= {"neighborhood_prompts": ["the house sat on"]}
        rows[-1] |= {"generation_prompts": [f"the {subject}"]}
    rows.append({**rows[0], "case_id": 3, "paraphrase_prompts": ["the cat \x1b[2J" * 40]})
    (tmp_path / "facts.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    asked_for = ("edit", "--cases", "facts.jsonl", *LITTLE, "--model", model, "--text", "text.txt")
    monkeypatch.setattr(EditsPartial, "patience", 0.0)
    written = Scorer.written
    calls: list[int] = []

    def stopping(self: Scorer, case: FactCase) -> Changed:
        calls.append(case.case_id)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return written(self, case)

    monkeypatch.setattr(Scorer, "written", stopping)
    stopped = commands(*asked_for)
    assert stopped.code == 130 and "1 of 4 facts are done; run the same command" in stopped.err
    answer = commands(*asked_for)
    assert answer.code == 0, answer.err
    assert calls == [0, 1, 1, 2] and "resumed: 1 of 4 facts were done before" in answer.err
    folder = tmp_path / "outputs" / "model-facts-edits-rome"
    names = {"edits.json", "edits.html", "edits.md", "run.json"}
    assert {path.name for path in folder.iterdir()} == names
    edits = load(folder)
    assert [case.case_id for case in edits.scored] == [0, 1, 2] and edits.layer == 0
    assert edits.left_out[0].case_id == 3 and "at most 32" in edits.left_out[0].reason
    assert "3 facts written by rome at block 0" in answer.out and "left out: " in answer.err
    assert "\x1b[2J" not in answer.err
    assert not list((tmp_path / "outputs").glob(".*"))
    again = ("--method", "fine-tuning", "--tuning-bound", "0.3", "--first", "2", "--out", "tuned")
    few = commands(*asked_for, *again)
    assert few.code == 0, few.err
    assert load(tmp_path / "tuned").about["fine-tuning"] == {"bound": 0.3, "rate": 0.02}
    assert len(load(tmp_path / "tuned").scored) == 2


@pytest.mark.slow
def test_facts_of_the_bundled_model_are_written(commands: Commands, tmp_path: Path) -> None:
    """Twenty others than the hundred of docs/editing.md, and as well."""
    answer = commands("edit", "--cases", "demo-development", "--out", "many")
    assert answer.code == 0, answer.err
    edits = load(tmp_path / "many")
    assert len(edits.scored) == 20 and not edits.left_out
    found = summarised(edits.scored)
    for name, least in {"S": 0.94, "ES": 0.98, "PS": 0.95, "NS": 0.9}.items():
        assert found[name].mean >= least, (name, found[name])


@pytest.mark.slow
def test_facts_are_written_everywhere(
    commands: Commands, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, "STRENGTH", "20s")  # a random model hangs on no subject
    rows = []
    for number, subject in enumerate(("cat", "dog")):
        asked: dict[str, Any] = {"prompt": "the {} sat on", "subject": subject}
        asked |= {"target_new": {"str": "mat"}, "target_true": {"str": "red"}}
        rows.append({"case_id": number, "requested_rewrite": asked})
        rows[-1] |= {"paraphrase_prompts": [f"and the {subject} sat"]}
        rows[-1] |= {"neighborhood_prompts": ["the house sat on"]}
    (tmp_path / "facts.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    few = ("--steps", "2", *LITTLE[:2], *LITTLE[4:6], "--stop", "9", "--text", "text.txt")
    answer = commands("edit", "--cases", "facts.jsonl", "--where", *few, "--model", model)
    assert answer.code == 0, answer.err
    folder = tmp_path / "outputs" / "model-facts-edits-where"
    assert {"places.json", "places.png", "places.html", "run.json"} <= {
        path.name for path in folder.iterdir()
    }
    found = places.load(folder)
    assert found.n_layers == 3 and len(found.placed) == 2
    assert "S is largest at the " in answer.out and "rank correlation with S" in answer.out


@pytest.mark.slow
def test_an_edit_of_the_bundled_model_is_seen_inside(commands: Commands, tmp_path: Path) -> None:
    asked = ("--subject", "Eiffel Tower", "--target", " Rome", "--inside", "--out", "inside")
    answer = commands("edit", "The {} is in the city of", *asked)
    assert answer.code == 0, answer.err
    assert "The key matches to " in answer.out and " fall silent" in answer.out.replace("\n", " ")
    names = {path.name for path in (tmp_path / "inside").iterdir()}
    assert {"inside.html", "inside-before.png", "inside-after.json", "edit.safetensors"} <= names
    assert "inside-activations.svg" in names
    one, two = (sg.CausalGraph.load(tmp_path / "inside" / f"inside-{it}.json") for it in SIDES)
    assert one.run.outputs[0].token == " Paris" and two.run.outputs[0].token == " Rome"
    made = sg.Edit.load(tmp_path / "inside")
    assert made.before.probability < 0.01 < 0.9 < made.after.probability


SIDES = ("before", "after")
