"""`StreamPoint`: a place in a model's residual stream."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from sae_graphs.errors import SaeGraphsError, SAELoadError, quoted

Site = Literal["pre", "mid", "post"]
_SITES: tuple[Site, ...] = ("pre", "mid", "post")
HOOK = re.compile(r"blocks\.(\d+)\.hook_(resid_pre|resid_mid|resid_post|in|out)")
# A block's output by its module's name in transformers, as SAEs trained without bridges have it.
_MODULE = re.compile(r"(?:[a-z_]+\.){0,2}(?:layers|h)\.(\d+)(?:\.output)?")
_SITE_OF_HOOK: dict[str, Site] = {
    "resid_pre": "pre",
    "in": "pre",
    "resid_mid": "mid",
    "resid_post": "post",
    "out": "post",
}


class StreamPoint(NamedTuple):
    """A place in the residual stream: before, inside or after a block."""

    block: int
    site: Site

    @property
    def depth(self) -> int:
        """Places along the stream, in order; the end of a block is the start of the next."""
        return 2 * self.block + _SITES.index(self.site)

    @property
    def hook_name(self) -> str:
        """The TransformerLens name, such as `blocks.5.hook_resid_pre`."""
        return f"blocks.{self.block}.hook_resid_{self.site}"

    @classmethod
    def parse(cls, hook_name: str | None) -> StreamPoint:
        """Raises `SAELoadError` where the hook is not on the residual stream.

        The name is TransformerLens's, or that of a block's module in transformers: its output.

        >>> StreamPoint.parse("model.layers.5")
        StreamPoint(block=5, site='post')
        """
        module = _MODULE.fullmatch(hook_name or "")
        if module is not None:
            return cls(int(module[1]), "post")
        found = HOOK.fullmatch(hook_name or "")
        if found is None:
            raise SAELoadError(
                f"an SAE was trained on {hook_name!r}, which is not on the residual stream; "
                "expected SAEs on blocks.N.hook_resid_pre, hook_resid_mid or hook_resid_post"
            )
        return cls(int(found[1]), _SITE_OF_HOOK[found[2]])


def parse_layers(text: str | None) -> tuple[str, str] | None:
    """`"3:8"` as (`"3"`, `"8"`): first and last layer, both included.

    >>> parse_layers("3:8")
    ('3', '8')
    """
    if text is None:
        return None
    first, colon, last = (part.strip() for part in text.partition(":"))
    if not (first and colon and last) or ":" in last:
        raise SaeGraphsError(f"layers {text!r}; expected first:last, both included, such as 3:8")
    return first, last


def labels_of(places: Sequence[tuple[StreamPoint, str | None]]) -> list[str]:
    """The labels of a stack's layers, given where each stands and its Neuronpedia id, by depth.

    `5` for `gpt2-small/5-res-jb`; without an id, the block number of the hook. In a stack that has
    SAEs before blocks, one after a block is called as one before the next would be. Where two are
    called alike, their site is added.

    >>> labels_of([(StreamPoint(0, "pre"), "pythia-70m-deduped/e-res-sm"),
    ...            (StreamPoint(0, "post"), "pythia-70m-deduped/0-res-sm")])
    ['e', '0']
    """
    counts_from_pre = any(point.site == "pre" for point, _ in places)
    labels = [_label(point, name, counts_from_pre) for point, name in places]
    return [
        f"{label}-{point.site}" if labels.count(label) > 1 else label
        for label, (point, _) in zip(labels, places, strict=True)
    ]


def ends(labels: Sequence[str], first: str, last: str, stack: str) -> tuple[int, int]:
    """Where the layers from label `first` to label `last` begin and end, the end excluded.

    Raises `SaeGraphsError` where there are no such layers, or fewer than two.
    """
    for label in (first, last):
        if label not in labels:
            raise SaeGraphsError(f"no SAE layer {label!r}; {stack} has {quoted(labels, limit=40)}")
    start, end = labels.index(first), labels.index(last)
    if start >= end:
        raise SaeGraphsError(
            f"layers {first}:{last} hold fewer than two SAE layers; give two, the lower one first"
        )
    return start, end + 1


def _label(point: StreamPoint, neuronpedia_id: str | None, counts_from_pre: bool) -> str:
    found = re.fullmatch(r"[^/]+/([A-Za-z0-9]+)(-.*)?", neuronpedia_id or "")
    if found is not None:
        return found[1]
    return str(point.block + (1 if counts_from_pre and point.site == "post" else 0))
