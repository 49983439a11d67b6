"""What a test reads off the explorer, as features and edges."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote

from sae_graphs.graph.graph import CausalGraph

_LIT = "boxes => boxes.map(box => Number(box.dataset.n))"
_SHOWN = "arrows => arrows.map(arrow => Number(arrow.dataset.e))"


def boxes(page: Any, graph: CausalGraph, kind: str) -> set[str]:
    """The features whose boxes have the class `kind`."""
    numbers = page.eval_on_selector_all(f".node[data-n].{kind}", _LIT)
    return {str(graph.nodes[number].feature) for number in numbers}


def arrows(page: Any, graph: CausalGraph, where: str = ".all .edge:not(.off)") -> set[str]:
    """The edges drawn, by default those that the filters leave."""
    return {
        f"{graph.edges[number].source}>{graph.edges[number].target}"
        for number in page.eval_on_selector_all(where, _SHOWN)
    }


def named(edges: Any) -> set[str]:
    """Edges as `arrows` names them."""
    return {f"{edge.source}>{edge.target}" for edge in edges}


def box(page: Any, graph: CausalGraph, feature: str) -> Any:
    """The box of a feature."""
    number = [str(node.feature) for node in graph.nodes].index(feature)
    return page.locator(f'.node[data-n="{number}"]')


def kept(page: Any) -> dict[str, Any]:
    """What the address holds."""
    page.wait_for_timeout(180)
    found: dict[str, Any] = json.loads(unquote(page.evaluate("location.hash").lstrip("#")) or "{}")
    return found


def slide(page: Any, name: str, value: float) -> None:
    """Moves a slider as a person does, its event included."""
    page.locator(f"#{name}").evaluate(
        "(slider, value) => { slider.value = value;"
        " slider.dispatchEvent(new Event('input', { bubbles: true })); }",
        value,
    )
