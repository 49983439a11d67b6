"""`StreamPoint`: a place in a model's residual stream."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from sae_graphs.errors import SAELoadError

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
