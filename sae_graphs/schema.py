"""Frozen dataclasses as checked JSON, and back."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from sae_graphs.errors import GraphFileError
from sae_graphs.graph.records import FeatureId

_REMEDY = "validate the graph again"


def _finite(text: str) -> float:
    return value if math.isfinite(value := float(text)) else _no_number(text)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not a number")


def _plain(value: Any) -> Any:
    if isinstance(value, FeatureId):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in _fields(type(value))}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _rebuilt(kind: Any, value: Any, where: str) -> Any:
    """`value` as the type `kind` says; `where` names it in the error's message."""
    if kind is Any:
        return value
    if kind is FeatureId:
        return FeatureId.parse(value)
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, value, where)
    parts = get_args(kind)
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        if value is None and NoneType in parts:
            return None
        (kind,) = (part for part in parts if part is not NoneType)
        return _rebuilt(kind, value, where)
    if origin is Literal:
        return value if value in parts else _wrong(where, value, f"one of {', '.join(parts)}")
    if origin is tuple:
        items = value if isinstance(value, list) else _wrong(where, value, "a list")
        kinds = parts[:1] * len(items) if parts[1:] == (...,) else parts
        if len(kinds) != len(items):
            _wrong(where, value, f"{len(kinds)} items")
        return tuple(_rebuilt(kind, item, where) for kind, item in zip(kinds, items, strict=True))
    if origin is Mapping:
        items = value if isinstance(value, dict) else _wrong(where, value, "a mapping")
        return {
            _rebuilt(parts[0], key, where): _rebuilt(parts[1], item, f"{where}: {key}")
            for key, item in items.items()
        }
    return _simple(kind, value, where)


def _simple(kind: type, value: Any, where: str) -> Any:
    if kind is float and value is None:
        return math.nan
    allowed = (int, float) if kind is float else (kind,)
    if isinstance(value, bool) != (kind is bool) or not isinstance(value, allowed):
        _wrong(where, value, {str: "a text", int: "a whole number"}.get(kind, "a number"))
    return float(value) if kind is float else value


def _dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        _wrong(where, value, "a mapping")
    hints = _hints(kind)
    needed = {
        field.name
        for field in _fields(kind)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    if missing := sorted(needed - value.keys()):
        raise GraphFileError(f"{missing[0]} of {where} is missing; {_REMEDY}")
    if unknown := sorted(value.keys() - hints.keys()):
        raise GraphFileError(f"{where} has {unknown[0]!r:.60}, which nobody knows; {_REMEDY}")
    return kind(**{name: _rebuilt(hints[name], item, name) for name, item in value.items()})


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _fields(kind: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(kind)


def _wrong(where: str, value: Any, expected: str) -> Any:
    raise GraphFileError(f"{where} is {value!r:.60}, expected {expected}; {_REMEDY}")
