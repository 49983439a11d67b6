"""The prompts of the bundled model's atlas: of every phenomenon, and of none twice."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from sae_graphs.atlas.prompts import read_prompts
from training.demo.atlas_prompts import write_prompts
from training.demo.corpus.stream import PHENOMENA, held_out_cases


def test_prompts_of_every_phenomenon(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    assert write_prompts(file, count=50) == 50
    found = read_prompts(file)
    assert Counter(each.categories["phenomenon"] for each in found) == dict.fromkeys(PHENOMENA, 5)
    assert len({each.prompt for each in found}) == 50
    held = {case.prompt: case.answer for case in held_out_cases("acronyms", 100, 5)}
    for each in found:
        if each.categories["phenomenon"] == "acronyms":
            assert each.categories["right"] == held[each.prompt]


def test_others_take_the_place_of_what_is_short(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    assert write_prompts(file, count=600) == 600
    counts = Counter(each.categories["phenomenon"] for each in read_prompts(file))
    assert counts["reports"] < 60 < counts["acronyms"]
