"""The examples in docstrings give what they say."""

from __future__ import annotations

import doctest
import importlib

import pytest

from tests.support.graphs import example

MODULES = (
    "graph.graph",
    "graph.paths",
    "graph.feature_id",
    "effects.changes",
    "render.pictures",
    "graph.names",
    "late",
    "text",
    "words",
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    module = importlib.import_module(f"sae_graphs.{name}")
    names = {"graph": example()}
    if name == "graph.names":
        from sae_graphs.graph.anatomy import BlockAnatomy

        names["BlockAnatomy"] = BlockAnatomy  # type: ignore[assignment]
    result = doctest.testmod(module, extraglobs=names)
    assert result.attempted
    assert not result.failed
