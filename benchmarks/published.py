"""What the method's source published of GPT-2 small, from a data file, checked as it is read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_graphs.errors import SaeGraphsError
from sae_graphs.graph.feature_id import FeatureId

FILE = Path(__file__).resolve().parent / "gpt2_small_published.json"
BOS = "<|endoftext|>"

Points = tuple[tuple[str, float], ...]  # a token's text, and percentage points


@dataclass(frozen=True)
class Figure:
    """One ablated path: its prompt, its layers, and what the next token's probabilities did.

    `nodes` is None where it was not published which features the path has. `control` is feature 0
    at `control_layers`, which need not be the path's; where `spaces_lost`, its tokens were printed
    without their leading space.
    """

    name: str
    prompt: str
    path_layers: tuple[str, ...]
    control_layers: tuple[str, ...]
    nodes: tuple[FeatureId, ...] | None
    top: Points
    up: Points
    down: Points
    control_up: Points
    control_down: Points
    spaces_lost: bool

    @property
    def zeroth(self) -> tuple[FeatureId, ...]:
        """Feature 0 of each layer of the published control."""
        return tuple(FeatureId(layer, 0) for layer in self.control_layers)

    @property
    def has_bos(self) -> bool:
        """Whether the prompt begins with a BOS of its own."""
        return self.prompt.startswith(BOS)


@dataclass(frozen=True)
class Published:
    """All of it; see the data file for where each part comes from."""

    source: str
    model: str
    graph: Mapping[str, Any]
    figures: tuple[Figure, ...]
    nodes: tuple[FeatureId, ...]
    weighted: Mapping[str, Any]
    sweep: Mapping[str, str]
    edges: Mapping[str, Sequence[Sequence[str]]]
    promotes: Mapping[str, Sequence[str]]
    activations: Mapping[str, Any]
    negative: Mapping[str, str]

    def ablated_in(self, figure: Figure) -> tuple[FeatureId, ...]:
        """A figure's features; where they were not published, all that any path has there."""
        if figure.nodes is not None:
            return figure.nodes
        return tuple(node for node in self.nodes if node.layer in figure.path_layers)

    def figure(self, name: str) -> Figure:
        """The figure of that name."""
        return next(figure for figure in self.figures if figure.name == name)


def read_published(file: Path = FILE) -> Published:
    """The data file; raises `SaeGraphsError` where it cannot be read or lacks something."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        figures = tuple(_figure(entry) for entry in data["figures"])
        others = {
            name: data[name]
            for name in Published.__dataclass_fields__
            if name not in ("figures", "nodes")
        }
        return Published(figures=figures, nodes=_features(data["nodes"]), **others)
    except OSError as problem:
        raise SaeGraphsError(f"cannot read {file}: {problem.strerror or problem}") from problem
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise SaeGraphsError(
            f"{file} is not published data ({type(problem).__name__}: {problem}); expected the "
            f"form of {FILE.name}"
        ) from problem


def _figure(entry: Mapping[str, Any]) -> Figure:
    points = {
        name: tuple((str(token), float(value)) for token, value in entry[name])
        for name in ("top", "up", "down", "control_up", "control_down")
    }
    return Figure(
        name=entry["name"],
        prompt=entry["prompt"],
        path_layers=tuple(entry["path_layers"]),
        control_layers=tuple(entry["control_layers"]),
        nodes=None if entry["nodes"] is None else _features(entry["nodes"]),
        spaces_lost=bool(entry["control_tokens_lost_their_space"]),
        **points,
    )


def _features(texts: Sequence[str]) -> tuple[FeatureId, ...]:
    return tuple(FeatureId.parse(text) for text in texts)
