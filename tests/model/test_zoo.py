"""Many families of transformers, tiny and random: each is the plain model, or refused in a line."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge

import sae_graphs as sg
from sae_graphs.errors import SaeGraphsError
from tests.support.slow import only
from tests.support.zoo import FAMILIES, REFUSED, Row, compared, save_family, table

QUICK = ("Granite", "OPT-350m", "HunYuan dense", "BERT")


@pytest.mark.parametrize("family", only(FAMILIES, *QUICK))
def test_a_family_is_its_plain_model_or_refused(family: str, tmp_path: Path) -> None:
    row = compared(family, save_family(family, tmp_path / "model"))
    if row.refused:
        assert REFUSED[family] in row.refused
        assert "\n" not in row.refused
    else:
        assert max(row.streams, row.logits) < 1e-5
        assert row.effects < 1e-5


def test_there_are_many_families() -> None:
    assert len(FAMILIES) >= 20
    assert len(FAMILIES) - len(REFUSED) >= 20


def test_a_brought_bridge_that_is_not_its_model_is_refused(tmp_path: Path) -> None:
    folder = save_family("HunYuan dense", tmp_path / "model")
    bridge = TransformerBridge.boot_transformers(str(folder), device="cpu", dtype=torch.float32)
    with pytest.raises(SaeGraphsError, match="the stream before block 1 is off by"):
        sg.LanguageModel(bridge).run([3, 4, 5, 6])


def test_the_documents_have_every_family() -> None:
    """Made by `python -m tests.support.zoo`; numbers are rounded, and may differ by machine."""
    page = Path(__file__).parents[2] / "docs" / "families.md"
    text = page.read_text(encoding="utf-8")
    held = text.split("<!-- families -->\n")[1].split("\n<!-- end -->")[0].splitlines()
    assert [line.split(" | ")[0] for line in held[2:]] == [f"| {name}" for name in FAMILIES]
    refused = {line.split(" | ")[0][2:] for line in held if "| refused |" in line}
    assert refused == set(REFUSED)


def test_a_table_says_what_is_refused_and_why() -> None:
    rows = [Row("one", 1e-7, 2e-7, 3e-7), Row("two", refused="'/tmp/x/3' cannot; use another")]
    assert table(rows).splitlines()[2:] == [
        "| one | 1e-07 | 2e-07 | 3e-07 |",
        "| two | refused | | it cannot |",
    ]
    assert math.isnan(rows[1].streams)
