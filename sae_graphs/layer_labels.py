"""What SAE layers are called: `5` in `5.10603`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sae_graphs.errors import SaeGraphsError, quoted
from sae_graphs.stream import StreamPoint


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
