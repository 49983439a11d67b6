"""Frozen dataclasses as checked JSON, and back.

A number that is not finite is written as null; where a record needs a number, null comes back as
NaN, which records that need a finite one refuse themselves.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from sae_graphs.errors import GraphFileError

Record = TypeVar("Record")
Own = Mapping[Any, Callable[[Any], Any]]  # how values of some types are written, or read

_SIMPLE = (str, int, float, bool)
_EXPECTED = {str: "a text", int: "a whole number", bool: "true or false"}


def plain(value: Any, own: Own | None = None) -> Any:
    """Dataclasses and mappings as dictionaries, sequences as lists; `own` writes its types."""
    for kind, write in (own or {}).items():
        if isinstance(value, kind):
            return write(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: plain(getattr(value, each.name), own) for each in _fields(type(value))}
    if isinstance(value, Mapping):
        return {str(plain(key, own)): plain(item, own) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, own) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def rebuilt(
    kind: Any,
    value: Any,
    where: str,
    own: Own | None = None,
    *,
    remedy: str,
    may_lack: frozenset[str] | None = None,
    skips_unknown: bool = False,
) -> Any:
    """The inverse of `plain`: `value` as the type `kind` says; `own` reads its types.

    Fields that have a default may be missing, or those of them alone that it `may_lack`; what no
    field is called is an error, unless it `skips_unknown`. Raises `GraphFileError`, which says what
    `where` is, what was expected and, in `remedy`, what to do; and what `own` raises.
    """
    return _Reader(own or {}, remedy, may_lack, skips_unknown).read(kind, value, where)


def read_json(file: Path, *, give: str, remedy: str) -> Any:
    """What a JSON file holds, every number finite.

    Raises `GraphFileError` where there is none (it says what to `give`) or it is no JSON.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
        return json.loads(text, parse_constant=_no_number, parse_float=_finite)
    except OSError as problem:
        reason = problem.strerror or "unreadable"
        raise GraphFileError(f"cannot read {file}: {reason}; give {give}") from problem
    except ValueError as problem:
        raise GraphFileError(f"{file} is not JSON ({problem}); {remedy}") from problem
    except RecursionError as problem:
        raise GraphFileError(f"{file} is nested too deeply; {remedy}") from problem


def record_bytes(record: Any) -> bytes:
    """A record's file, as JSON: ASCII, so that no text can spoil it; no NaN."""
    return (json.dumps(plain(record), allow_nan=False, indent=1) + "\n").encode("ascii")


def read_record(
    kind: type[Record], path: str | Path, file_name: str, *, holds: str, remedy: str
) -> Record:
    """A record from its file, or from `file_name` in a folder. Its field `schema` has a default.

    Raises `GraphFileError` where there is none, or where it has another schema or is damaged;
    `holds` says what such a file holds.
    """
    file = Path(path)
    file = file / file_name if file.is_dir() else file
    held = read_json(file, give=f"a folder of {holds}", remedy=remedy)
    if not isinstance(held, dict) or held.get("schema") != vars(kind)["schema"]:
        raise GraphFileError(f"{file} holds no {holds}; {remedy}")
    found: Record = rebuilt(kind, held, str(file), remedy=remedy)
    return found


def _finite(text: str) -> float:
    return value if math.isfinite(value := float(text)) else _no_number(text)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not a number")


@dataclasses.dataclass(frozen=True)
class _Reader:
    own: Own
    remedy: str
    may_lack: frozenset[str] | None
    skips_unknown: bool

    def read(self, kind: Any, value: Any, where: str) -> Any:
        """`value` as the type `kind` says; `where` names it in the error's message."""
        if kind in self.own:
            return self.own[kind](value)
        form, parts = _form(kind)
        if form is Any or (type(value) is parts[0] and form in (Union, *_SIMPLE)):
            return value  # most of what files hold: texts and numbers as they should be
        if form is Union:
            return None if value is None else self.read(parts[0], value, where)
        if form is tuple:
            return self._tuple(parts, value, where)
        if form is Literal:
            fits = value in parts
            return value if fits else self._wrong(where, value, f"one of {', '.join(parts)}")
        if form is Mapping:
            items = value if isinstance(value, dict) else self._wrong(where, value, "a mapping")
            return {
                self.read(parts[0], key, where): self.read(parts[1], item, f"{where}: {key}")
                for key, item in items.items()
            }
        read = self._record if form is None else self._simple
        return read(kind, value, where)

    def _tuple(self, parts: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
        items = value if isinstance(value, list) else self._wrong(where, value, "a list")
        every = parts[1:] == (...,)
        if every and parts[0] in _SIMPLE and all(type(item) is parts[0] for item in items):
            return tuple(items)  # as below, only sooner: most of what files hold is such lists
        kinds = parts[:1] * len(items) if every else parts
        if len(kinds) != len(items):
            self._wrong(where, value, f"{len(kinds)} items")
        return tuple(self.read(kind, item, where) for kind, item in zip(kinds, items, strict=True))

    def _simple(self, kind: type, value: Any, where: str) -> Any:
        if kind is float and value is None:
            return math.nan
        allowed = (int, float) if kind is float else (kind,)
        if isinstance(value, bool) != (kind is bool) or not isinstance(value, allowed):
            self._wrong(where, value, _EXPECTED.get(kind, "a number"))
        try:
            return float(value) if kind is float else value
        except OverflowError:  # a whole number beyond all others
            return self._wrong(where, value, "a number")

    def _record(self, kind: Any, value: Any, where: str) -> Any:
        if not isinstance(value, dict):
            self._wrong(where, value, "a mapping")
        hints = _hints(kind)
        if missing := _needed(kind, self.may_lack) - value.keys():
            raise GraphFileError(f"{min(missing)} of {where} is missing; {self.remedy}")
        if not self.skips_unknown and (unknown := value.keys() - hints.keys()):
            raise GraphFileError(
                f"{where} has {min(unknown)!r:.60}, which nobody knows; {self.remedy}"
            )
        read = self.read
        return kind(**{k: read(hints[k], item, k) for k, item in value.items() if k in hints})

    def _wrong(self, where: str, value: Any, expected: str) -> Any:
        raise GraphFileError(f"{where} is {value!r:.60}, expected {expected}; {self.remedy}")


@cache
def _form(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    """What sort of type it is, and what it is made of; None for a dataclass.

    The sort of `str` is `str`; of `X | None`, Union, made of X.
    """
    if dataclasses.is_dataclass(kind):
        return None, (kind,)
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        (known,) = (part for part in parts if part is not NoneType)
        return Union, (known,)
    return origin or kind, parts or (kind,)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


@cache
def _fields(kind: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(kind)


@cache
def _needed(kind: Any, may_lack: frozenset[str] | None) -> frozenset[str]:
    without_default = {
        each.name
        for each in _fields(kind)
        if each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
    }
    names = {each.name for each in _fields(kind)}
    return frozenset(without_default | (set() if may_lack is None else names - may_lack))
