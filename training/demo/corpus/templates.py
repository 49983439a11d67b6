"""Templates filled in, with the place of what was filled in."""

from __future__ import annotations

from string import Formatter


def filled(template: str, **values: str) -> tuple[str, dict[str, tuple[int, int]]]:
    """`template.format(**values)`, and the characters where each value first stands in it.

    The places are counted while the text is put together, so a value that also occurs elsewhere
    in the text, or inside another value, is not mistaken for it.
    """
    text = ""
    places: dict[str, tuple[int, int]] = {}
    for literal, field, _, _ in Formatter().parse(template):
        text += literal
        if field is not None:
            places.setdefault(field, (len(text), len(text) + len(values[field])))
            text += values[field]
    return text, places
