"""The benchmark of an atlas: what it generates is one, and it times what is asked."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.atlas import Question, check_same, main
from benchmarks.atlas_made import generate
from sae_graphs.atlas.atlas import Atlas


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generated") / "atlas"
    generate(folder, 40_000)
    return folder


@pytest.mark.slow
def test_what_is_generated_is_in_the_order_of_a_build(made: Path) -> None:
    atlas = Atlas(made)
    found = atlas.sql(
        "SELECT source_layer, source_index, target_layer, target_index FROM edges"
    ).values.tolist()
    assert found == sorted(found) and len(found) > 20_000
    weights = "SELECT prompt_id, sum(strength) AS own FROM edges GROUP BY prompt_id"
    off = f"SELECT own - p.strength AS off FROM ({weights}) JOIN prompts p USING (prompt_id)"
    assert atlas.sql(off)["off"].abs().max() < 1e-9
    one = atlas.prompts(limit=1)["prompt_id"][0]
    near = atlas.similar(one)
    assert one not in set(near["prompt_id"]) and near["similarity"].between(1e-9, 1).all()


@pytest.mark.slow
def test_it_runs_and_answers_are_those_of_queries_by_hand(made: Path, tmp_path: Path) -> None:
    main(edges=40_000, out=tmp_path, folder=made, times=1)
    found = json.loads((tmp_path / "atlas.json").read_text())
    assert found["rows"]["prompts"] == 1000
    assert len(found["questions"]) == 9
    for row in found["questions"]:
        assert min(row["seconds"], row["bare"], row["processor"], row["bare_processor"]) > 0


def test_other_answers_are_told() -> None:
    question = Question("?", lambda atlas: atlas, [], ["n"])
    check_same(question, [pd.DataFrame({"n": [1, 2]})], [pd.DataFrame({"n": [2, 1]})])
    with pytest.raises(AssertionError):
        check_same(question, [pd.DataFrame({"n": [1, 2]})], [pd.DataFrame({"n": [1, 3]})])
