"""Records as files: one writer and one reader."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import pytest

from sae_graphs.errors import GraphFileError
from sae_graphs.schema import read_record, record_bytes


@dataclass(frozen=True)
class Two:
    """Two numbers."""

    one: float
    other: float
    schema: str = "two/1"


def read(path: Path) -> Two:
    return read_record(Two, path, "two.json", holds="two numbers", remedy="make it again")


def test_a_record_is_read_as_it_was_written_and_what_is_no_number_is_null(tmp_path: Path) -> None:
    file = tmp_path / "two.json"
    file.write_bytes(record_bytes(Two(0.5, 2.0)))
    assert read(file) == read(tmp_path) == Two(0.5, 2.0)
    file.write_bytes(record_bytes(Two(0.5, math.nan)))
    assert json.loads(file.read_text("ascii"))["other"] is None
    assert math.isnan(read(tmp_path).other)


@pytest.mark.parametrize(
    ("held", "line"),
    [
        (None, "cannot read .*two.json: .*; give a folder of two numbers"),
        ("{", "is not JSON .*; make it again"),
        ("[]", "holds no two numbers; make it again"),
        ('{"one": 1, "other": 2, "schema": "two/2"}', "holds no two numbers; make it again"),
        ('{"one": 1, "schema": "two/1"}', "other of .* is missing; make it again"),
        ('{"one": 1, "other": NaN, "schema": "two/1"}', "NaN is not a number"),
    ],
)
def test_what_is_no_such_record_is_one_line(tmp_path: Path, held: str | None, line: str) -> None:
    if held is not None:
        (tmp_path / "two.json").write_text(held, encoding="ascii")
    with pytest.raises(GraphFileError, match=line) as told:
        read(tmp_path)
    assert "\n" not in str(told.value)
