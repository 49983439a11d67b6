"""Keyword options of the public functions: settings made of them, and an answer to a wrong one.

A function names its options in its signature, for readers and for tab completion, and takes them
from one settings object, which checks them.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, cast

from sae_graphs.errors import SaeGraphsError, quoted
from sae_graphs.late import named

Function = TypeVar("Function", bound=Callable[..., Any])

NONE: Mapping[str, Any] = MappingProxyType({})


def with_settings(
    kind: type,
    *,
    own: Collection[str] = (),
    renamed: Mapping[str, str] = NONE,
    usual: Mapping[str, Any] = NONE,
    loader: str = "load",
) -> Callable[[Function], Function]:
    """For a function whose options are the fields of the dataclass `kind`.

    What is given of them is made into its parameter `settings`; `settings` given whole stay as they
    are. Those in `own` the function reads itself; those in `usual` are so unless given. A `model`
    given by name or folder is loaded, by the public function `loader`. Raises `SaeGraphsError`
    where both are given, and for a name that is no option; `renamed` are old spellings, which still
    do.
    """
    own_names = {field.name for field in fields(kind)} - set(own)

    def decorated(function: Function) -> Function:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def called(*args: Any, **given: Any) -> Any:
            options = spelled(given, signature, renamed)
            chosen = {name: options.pop(name) for name in own_names & options.keys()}
            bound = signature.bind_partial(*args, **options)
            whole = bound.arguments.get("settings")
            if whole is not None and not isinstance(whole, kind):
                raise SaeGraphsError(
                    f"settings are {whole!r:.60}; give options by name, or a {kind.__name__}"
                )
            if chosen and bound.arguments.get("settings") is not None:
                raise SaeGraphsError(f"give settings, or {quoted(sorted(chosen))}, not both")
            if chosen:
                bound.arguments["settings"] = kind(**{**usual, **chosen})
            _load_named(bound, loader)
            return function(*bound.args, **bound.kwargs)

        return cast(Function, called)

    return decorated


def checked(function: Function) -> Function:
    """For a function without settings: a name that is no option raises `SaeGraphsError`."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def called(*args: Any, **given: Any) -> Any:
        spelled(given, signature)
        return function(*args, **given)

    return cast(Function, called)


def with_model(function: Function) -> Function:
    """`checked`, for a function whose `model` is loaded where a name or a folder is given."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def called(*args: Any, **given: Any) -> Any:
        bound = signature.bind_partial(*args, **spelled(given, signature))
        _load_named(bound)
        return function(*bound.args, **bound.kwargs)

    return cast(Function, called)


def _load_named(bound: inspect.BoundArguments, loader: str = "load") -> None:
    """The model in place of its name, where a name or a folder is given."""
    if isinstance(bound.arguments.get("model"), str | Path):
        bound.arguments["model"] = named(loader)(bound.arguments["model"])


def spelled(
    given: Mapping[str, Any], signature: inspect.Signature, renamed: Mapping[str, str] = NONE
) -> dict[str, Any]:
    """Options by the names they have now; raises `SaeGraphsError` for one that has none."""
    known, options = signature.parameters, dict[str, Any]()
    for word, value in given.items():
        name = renamed.get(word, word)
        if name not in known:
            raise SaeGraphsError(f"no option {word!r}; {_nearest(word, signature)}")
        if name in options:
            raise SaeGraphsError(f"{name} and {word} are one option, and both are given")
        options[name] = value
    return options


def _nearest(word: str, signature: inspect.Signature) -> str:
    """What may have been meant, else what there is."""
    optional = [it.name for it in signature.parameters.values() if it.default is not it.empty]
    near = difflib.get_close_matches(word, optional, n=1)
    return f"did you mean {near[0]}?" if near else f"expected {quoted(optional, 40)}"
