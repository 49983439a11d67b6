"""Prompts that are read from files: what they say, and what is wrong with them."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from io import StringIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sae_graphs.atlas.prompts import Asked, asked_of, check_categories, read_prompts
from sae_graphs.errors import SaeGraphsError

EXPECTED = (
    Asked("Copyright (C", ")", {"kind": "closing"}),
    Asked("the cat\nsat", None, {"kind": "other"}),
)
FILES = {
    "a.jsonl": '{"prompt": "Copyright (C", "target": ")", "kind": "closing"}\n\n'
    '{"prompt": "the cat\\nsat", "kind": "other"}\n',
    "a.csv": 'prompt,target,kind\nCopyright (C,),closing\n"the cat\nsat",,other\n',
    "a.tsv": 'prompt\ttarget\tkind\nCopyright (C\t)\tclosing\n"the cat\nsat"\t\tother\n',
}


@pytest.mark.parametrize("name", FILES)
def test_files_with_columns(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_bytes(FILES[name].encode())
    assert read_prompts(file) == EXPECTED
    assert read_prompts(file, categories=[])[0].categories == {}


def test_parquet_and_plain_text(tmp_path: Path, logged: StringIO) -> None:
    table = pa.table(
        {
            "prompt": [each.prompt for each in EXPECTED],
            "target": [each.target for each in EXPECTED],
            "kind": ["closing", "other"],
            "vector": [[1.0], [2.0]],  # no category
        }
    )
    file = tmp_path / "kind=path" / "a.parquet"  # a name that columns are read from elsewhere
    file.parent.mkdir()
    pq.write_table(table, file, row_group_size=1)
    assert read_prompts(file) == EXPECTED
    assert f"vector of {file} hold no text or number, and are left out" in logged.getvalue()
    with pytest.raises(SaeGraphsError, match=r"row 1: vector is \[1\.0\]; a category is a text"):
        read_prompts(file, categories=["kind", "vector"])
    (tmp_path / "a.txt").write_text("Copyright (C\n\n the cat\n")
    assert read_prompts(tmp_path / "a.txt") == (Asked("Copyright (C"), Asked(" the cat"))


def test_dates_and_numbers_are_categories(tmp_path: Path) -> None:
    row = {"prompt": ["a"], "day": [date(2024, 2, 1)], "at": [datetime(2024, 2, 1, 12)]}
    row |= {"n": [3], "yes": [True], "price": [Decimal("1.50")]}
    pq.write_table(pa.table(row), tmp_path / "a.parquet")
    (found,) = read_prompts(tmp_path / "a.parquet")
    assert found.categories == {
        **{"day": "2024-02-01", "at": "2024-02-01 12:00:00"},
        **{"n": "3", "yes": "True", "price": "1.50"},
    }
    (tmp_path / "a.jsonl").write_text('{"prompt": "a", "inner": {"x": 1}}\n')
    with pytest.raises(SaeGraphsError, match="row 1: inner is"):
        read_prompts(tmp_path / "a.jsonl", categories=["inner"])
    with pytest.raises(SaeGraphsError, match="prompt 1: inner is"):
        asked_of([{"prompt": "a", "inner": {}}])


def test_another_column(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,n\nthe cat,1\n,2\n")
    assert read_prompts(tmp_path / "a.csv", column="text") == (Asked("the cat", None, {"n": "1"}),)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.jsonl", "", "holds no prompts"),
        ("a.txt", "\n \n", "holds no prompts"),
        ("a.csv", "text\nthe cat\n", "row 1 has no column 'prompt'; it has text; name the"),
        ("a.jsonl", "{", "line 1 is no JSON"),
        ("a.jsonl", "[1]", "expected an object"),
        ("a.jsonl", '{"prompt": 3}', "row 1: a prompt is 3; expected some text"),
        ("a.jsonl", '{"prompt": "x", "target": 3}', "a target is 3"),
        ("a.parquet", "nothing", "cannot read"),
        ("a.docx", "x", "expected one of .jsonl"),
    ],
)
def test_mistakes_in_files(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(SaeGraphsError, match=words) as told:
        read_prompts(tmp_path / name)
    assert "\n" not in str(told.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SaeGraphsError, match="No such file or directory; give a file of"):
        read_prompts(tmp_path / "none.csv")
    (tmp_path / "a.csv").write_bytes(b"prompt\n\xff\xfe\n")
    with pytest.raises(SaeGraphsError, match="it is not UTF-8"):
        read_prompts(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("prompt,kind\nthe cat,x\n")
    with pytest.raises(SaeGraphsError, match="has no column 'sort'"):
        read_prompts(tmp_path / "b.csv", categories=["sort"])
    (found,) = read_prompts(tmp_path / "b.csv", categories=["kind"], besides=["sort", "kind"])
    assert found.categories == {"kind": "x"}


def test_an_id_is_of_the_prompt_and_its_answer() -> None:
    ids = {Asked("a").id, Asked("b").id, Asked("a", "x").id, Asked("a", "y").id}
    assert len(ids) == 4 and all(len(name) == 12 for name in ids)
    assert Asked("a", None, {"kind": "x"}).id == Asked("a").id


def test_prompts_as_they_are_given() -> None:
    assert asked_of(["a", {"prompt": "b", "kind": "x"}, Asked("c")]) == (
        *(Asked("a"), Asked("b", None, {"kind": "x"}), Asked("c")),
    )
    half = "\ud800"
    for row in ({"prompt": half}, {"prompt": "a", half: "b"}, {"prompt": "a", "k": half}):
        with pytest.raises(SaeGraphsError, match="half a character"):
            asked_of([row])
    with pytest.raises(SaeGraphsError, match="expected texts by name"):
        Asked("a", None, {"k": 3})  # type: ignore[dict-item]
    with pytest.raises(SaeGraphsError, match="a prompt is ''"):
        asked_of([""])


def test_names_of_categories() -> None:
    asked = [Asked("a", None, {"kind": "x"}), Asked("b", None, {"size": "1"})]
    assert check_categories(asked, ["layer"]) == ("kind", "size")
    with pytest.raises(SaeGraphsError, match="'Kind' has the name of one"):
        check_categories([Asked("a", None, {"Kind": "x"})], ["kind"])
    with pytest.raises(SaeGraphsError, match="two differ in case alone"):
        check_categories([Asked("a", None, {"Kind": "x", "kind": "y"})], ["layer"])
