"""What a reader says of a graph: pins, named groups, labels, notes, a title and a caption.

`annotations.json` holds it: the explorer in `graph.html` writes such a file and reads it back, and
pictures and exports draw it. Nothing of it is measured.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from sae_graphs.errors import GraphFileError, SaeGraphsError, quoted
from sae_graphs.files import save_at
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.runs import ANNOTATIONS
from sae_graphs.schema import plain, read_json, rebuilt

SCHEMA = "sae_graphs/annotations/1"
LONGEST = 2000  # characters of any text
_REMEDY = "give a file that the explorer saved"


@dataclass(frozen=True)
class Group:
    """A supernode: features that a reader takes for one thing, under a name.

    `folded` draws them as one box, with the arrows of all of them.
    """

    name: str
    features: tuple[FeatureId, ...]
    folded: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise SaeGraphsError(f"a group is called {self.name!r:.60}; give it a name")
        if not self.features:
            raise SaeGraphsError(f"the group {self.name!r} holds no features; name some")


@dataclass(frozen=True)
class Annotations:
    """Everything that a reader may add to a graph; empty by default.

    A feature is in one group at most, and no two groups share a name. `labels` are names for
    features, `notes` longer texts; `note` is one on the whole graph.
    """

    title: str | None = None
    caption: str | None = None
    pins: tuple[FeatureId, ...] = ()
    groups: tuple[Group, ...] = ()
    labels: Mapping[FeatureId, str] = field(default_factory=dict)
    notes: Mapping[FeatureId, str] = field(default_factory=dict)
    note: str | None = None

    def __post_init__(self) -> None:
        for name in ("title", "caption", "note"):
            _check_text(name, getattr(self, name))
        for name in ("labels", "notes"):
            for feature, text in getattr(self, name).items():
                _check_text(f"what {name} say of {feature}", text)
        named = Counter(group.name for group in self.groups)
        members = Counter(feature for group in self.groups for feature in group.features)
        twice = [name for name, count in (*named.items(), *members.items()) if count > 1]
        if twice:
            raise SaeGraphsError(
                f"{twice[0]} is in two groups, or the name of two; expected each once"
            )

    def __bool__(self) -> bool:
        return any(bool(getattr(self, each.name)) for each in fields(self))

    @property
    def features(self) -> frozenset[FeatureId]:
        """Every feature of which something is said."""
        grouped = (feature for group in self.groups for feature in group.features)
        return frozenset((*self.pins, *grouped, *self.labels, *self.notes))

    def group_of(self, feature: FeatureId) -> Group | None:
        """The group that a feature is in."""
        return next((group for group in self.groups if feature in group.features), None)


def _check_text(what: str, text: object) -> None:
    if text is not None and not (isinstance(text, str) and len(text) <= LONGEST):
        raise SaeGraphsError(
            f"{what} is {text!r:.60}; expected a text of at most {LONGEST:,} characters"
        )


NO_ANNOTATIONS = Annotations()


def fitting(
    annotations: Annotations,
    features: Iterable[FeatureId],
    *,
    told: Callable[[str], None] | None = None,
) -> Annotations:
    """The annotations of the `features` that a graph holds; `told` gets one line on the others.

    Raises `SaeGraphsError` where features are annotated and the graph holds none of them.
    """
    held = frozenset(features)
    missing = sorted(map(str, annotations.features - held))
    if not missing:
        return annotations
    if len(missing) == len(annotations.features):
        raise SaeGraphsError(
            f"none of the annotated features is in this graph: {quoted(missing)}; give the "
            "annotations of this prompt and these SAEs"
        )
    if told is not None:
        told(f"annotated, but not in this graph, and left out: {quoted(missing)}")
    groups = [
        replace(group, features=kept)
        for group in annotations.groups
        if (kept := tuple(feature for feature in group.features if feature in held))
    ]
    return replace(
        annotations,
        pins=tuple(feature for feature in annotations.pins if feature in held),
        groups=tuple(groups),
        labels={name: text for name, text in annotations.labels.items() if name in held},
        notes={name: text for name, text in annotations.notes.items() if name in held},
    )


# -- files -----------------------------------------------------------------------------------------


def to_json(annotations: Annotations) -> dict[str, Any]:
    """Plain JSON, with its `schema`; features are strings."""
    return {"schema": SCHEMA, **plain(annotations, {FeatureId: str})}


def from_json(data: Any) -> Annotations:
    """The inverse of `to_json`; keys that are not known (a view, say) are left alone.

    Raises `SaeGraphsError` where the schema, or a value, is another.
    """
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema != SCHEMA:
        raise GraphFileError(f"schema is {schema!r:.60}, expected {SCHEMA!r}; {_REMEDY}")
    values = {name: value for name, value in data.items() if value is not None}
    own = {tuple[FeatureId, ...]: _features, Mapping[FeatureId, str]: _texts}
    found: Annotations = rebuilt(
        Annotations, values, "the file", own, remedy=_REMEDY, skips_unknown=True
    )
    return found


def to_bytes(annotations: Annotations) -> bytes:
    """The contents of `annotations.json`: ASCII, so that no text can spoil it."""
    return (json.dumps(to_json(annotations), indent=1) + "\n").encode("ascii")


def save(annotations: Annotations, path: str | Path) -> Path:
    """Write in one step, into a folder or to a file; returns the file."""
    return save_at(path, ANNOTATIONS, to_bytes(annotations))


def load(path: str | Path) -> Annotations:
    """Read a file, or the one in a run's folder; raises `GraphFileError` where it cannot be."""
    file = Path(path)
    if file.is_dir():
        file = file / ANNOTATIONS
    give = "a file that the explorer in graph.html saved"
    data = read_json(file, give=give, remedy=_REMEDY)
    try:
        return from_json(data)
    except SaeGraphsError as problem:
        raise GraphFileError(f"{file}: {problem}") from problem


def _features(names: Any) -> tuple[FeatureId, ...]:
    if not isinstance(names, list):
        raise GraphFileError(f"features are {names!r:.60}, expected a list; {_REMEDY}")
    return tuple(dict.fromkeys(FeatureId.parse(name) for name in names))


def _texts(values: Any) -> dict[FeatureId, str]:
    if not isinstance(values, dict):
        raise GraphFileError(f"texts are {values!r:.60}, expected a mapping; {_REMEDY}")
    return {FeatureId.parse(name): text for name, text in values.items() if text}
