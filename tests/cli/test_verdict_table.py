"""What `validate` prints: every unit in a table, the important ones in sentences."""

from __future__ import annotations

import re

import pytest

from sae_graphs.validation.verdicts import verdict
from tests.support import evidence
from tests.support.report_page import ODD, printed


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_terminal_shows_every_unit(width: int) -> None:
    report = evidence.report()
    text = printed(report, width)
    assert max(map(len, text.splitlines())) <= width
    for wanted in ("+71.9", "0.050", "supported", "distinguishable", "Graph 2"):
        assert wanted in text
    for unit in (report.units[0], report.units[1], report.units[2]):
        told = " ".join(text.split())
        assert all(words in told for words in verdict(unit, report).sentences)


def test_the_terminal_tells_at_most_five_units_and_names_their_features() -> None:
    units = [evidence.unit("Graph 1"), evidence.unit()]
    weak = evidence.tested(p=0.9, q=0.9)
    units += [evidence.unit(f"Graph 1, path {place}", tested=weak) for place in range(2, 8)]
    small = evidence.result(target=evidence.token_change(before=0.75, after=0.70))
    units.append(evidence.unit("Graph 1, path 8", tested=weak, results=(small,)))
    text = printed(evidence.report(units=units), 120)
    told = re.findall(r"^(Graph 1(?:, path \d \(0\.1 → 1\.1 → 2\.10600 → 3\.5\))?): \w", text, re.M)
    assert len(told) == 5 and told[0] == "Graph 1" and "path 1 (" in told[1]
    text = printed(evidence.report(units=units[-1:]), 120)
    assert "Graph 1, path 8 (" not in text


def test_only_columns_that_are_shown_are_explained() -> None:
    told = "mediated: how much of what its first feature"
    assert told in printed(evidence.report(), 200) and "81 %" in printed(evidence.report(), 200)
    assert told not in printed(evidence.report(units=(evidence.bare_unit(),)), 200)
    norm = "; norm: how much of its norm those remove"
    assert norm in " ".join(printed(evidence.report(), 200).split()) and norm not in printed(
        evidence.report(), 60
    )


def test_what_tells_most_is_kept_at_80_columns() -> None:
    for width, names in ((120, {"features", "q", "norm"}), (80, {"q", "mediated", "contribution"})):
        lines = printed(evidence.report(), width).splitlines()
        assert names <= set(next(line for line in lines if "verdict" in line).split())
    assert "1 discovery prompt decides" in printed(evidence.report(), 80)


def test_markup_in_tokens_is_not_obeyed() -> None:
    report = evidence.report(target="[bold]x[/bold]\x1b[31m", prompt="[red]")
    text = printed(report, 120)
    assert "[bold]x[/bold]\\x1b[31m" in text and "\x1b" not in text


def test_units_without_anything_print() -> None:
    for report in ODD.values():
        assert printed(report, 100)
