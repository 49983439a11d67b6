"""The stacks of residual SAEs that sae-lens lists: which there are, and what each one takes.

A stack is one SAE at every, or nearly every, block of a model. Where a release holds several per
layer, each choice is a stack of its own. Sizes are in bytes.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple

from sae_graphs.errors import HubError
from sae_graphs.model.shelf import HubFile
from sae_graphs.pretrained.hub import fetch, file_sizes, is_offline, missing
from sae_graphs.pretrained.hub_saes import configuration
from sae_graphs.pretrained.listing import is_answer, listing, n_parameters, remote_tensors
from sae_graphs.pretrained.models import official_name
from sae_graphs.pretrained.releases import ListedSAE, Release, all_releases, default_saes
from sae_graphs.pretrained.sae_pattern import choose
from sae_graphs.pretrained.sizes import ITEM_BYTES

NEARLY_ALL = 0.8  # of a model's blocks, for a stack to be listed
ASKED_AT_ONCE = 8  # requests to the hub
TRIED = 2  # releases, to know whether the hub answers at all
_WIDTH = re.compile(r"(?<![a-z0-9])w?(\d+)(k|(?<=width-1)m)(?![a-z0-9])")


@dataclass(frozen=True)
class ListedStack:
    """A stack that can be loaded: `release` for `--saes`, `pattern` for `--sae-pattern`.

    `pattern` is None where the release needs none. `n_blocks` is how many blocks the model has, as
    far as the directory tells. `width` is the number of features of an SAE, `parameters` the
    model's; they, `d_in` and `download`, the bytes of the SAEs to fetch, are None where they are
    not known, and `download` is 0 where all is here.
    """

    release: str
    model: str
    pattern: str | None
    saes: tuple[ListedSAE, ...]
    n_blocks: int
    width: int | None = None
    d_in: int | None = None
    download: int | None = None
    parameters: int | None = None

    @property
    def sites(self) -> tuple[str, ...]:
        """Where in a block the SAEs stand: some of `pre`, `mid`, `post`."""
        held = {sae.point.site for sae in self.saes if sae.point is not None}
        return tuple(site for site in ("pre", "mid", "post") if site in held)

    @property
    def neuronpedia(self) -> tuple[str, ...]:
        """The ids of the SAEs that Neuronpedia holds."""
        return tuple(sae.neuronpedia_id for sae in self.saes if sae.neuronpedia_id)

    @property
    def is_default(self) -> bool:
        """Whether the model gets this stack where the user names none."""
        return default_saes(self.model) == (self.release, self.pattern)

    def memory(self, dtype: str = "float32", *, at_once: int | None = None) -> int | None:
        """What the SAEs take, all of them or `at_once`; None where their width is not known."""
        if self.width is None or self.d_in is None:
            return None
        each = (2 * self.d_in * self.width + self.d_in + 2 * self.width) * ITEM_BYTES[dtype]
        return each * (len(self.saes) if at_once is None else min(at_once, len(self.saes)))


def listed_stacks(containing: str = "") -> tuple[ListedStack, ...]:
    """The stacks whose model's or release's name contains a text, by model, defaults first."""
    releases = [release for release in all_releases() if release.residual]
    blocks: dict[str, int] = defaultdict(int)
    for release in releases:
        deepest = max(sae.point.block for sae in release.residual if sae.point is not None)
        blocks[_short(release.model)] = max(blocks[_short(release.model)], deepest + 1)
    found = [
        stack
        for release in releases
        for stack in _stacks_of(release, blocks[_short(release.model)])
        if containing.lower() in f"{stack.model} {stack.release}".lower()
    ]
    return tuple(sorted(found, key=lambda s: (_short(s.model), not s.is_default, s.release)))


def with_sizes(
    stacks: Sequence[ListedStack], progress: Callable[[int, int], None] | None = None
) -> tuple[tuple[ListedStack, ...], str | None]:
    """The stacks with their widths and sizes, from what is here and from the hub.

    Also says why the hub was not asked, or did not answer; None where it did. `progress` is told
    the releases done and all of them.
    """
    names = list(dict.fromkeys(stack.release for stack in stacks))
    releases = {release.name: release for release in all_releases() if release.name in names}
    problem = "HF_HUB_OFFLINE is set" if is_offline() else _no_answer(releases, names)
    online = problem is None
    facts: dict[str, _Facts] = {}
    with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        models = list(dict.fromkeys(stack.model for stack in stacks))
        parameters = pool.map(_parameters, models if online else [])
        for found in pool.map(lambda name: _ask(releases[name], online=online), names):
            facts[names[len(facts)]] = found
            if progress is not None:
                progress(len(facts), len(names))
        counts = dict(zip(models, parameters, strict=False))
    # No request is under way now: reading configurations forbids them to the whole process.
    facts = {name: _with_configuration(releases[name], found) for name, found in facts.items()}
    sized = [_sized(s, releases[s.release], facts[s.release]) for s in stacks]
    d_in = {_short(stack.model): stack.d_in for stack in sized if stack.d_in is not None}
    return tuple(
        replace(s, d_in=s.d_in or d_in.get(_short(s.model)), parameters=counts.get(s.model))
        for s in sized
    ), problem


def _no_answer(releases: Mapping[str, Release], names: Sequence[str]) -> str | None:
    """Why the hub does not answer: None where it does for any of the first few releases."""
    problem = None
    for name in names[:TRIED]:
        try:
            listing(releases[name].repo_id, name)
        except HubError as refused:
            if is_answer(refused):
                return None
            problem = problem or str(refused)
        else:
            return None
    return problem


def _parameters(model: str) -> int | None:
    return n_parameters(official_name(model))


class _Facts(NamedTuple):
    """What is known of a release: its files here and in all, and its first SAE's shape."""

    here: dict[str, int]
    listed: dict[str, int]
    d_in: int | None = None
    width: int | None = None


def _ask(release: Release, *, online: bool) -> _Facts:
    """The files of a release, after fetching the first SAE's configuration if it is a file."""
    here = listed = file_sizes(release.repo_id)
    if not online:
        return _Facts(here, listed)
    first = release.residual[0]
    try:
        listed = listing(release.repo_id, release.name)
        names = (*release.files(first, listed), *release.optional_files(first))
        texts = [n for n in names if n.endswith(".json") and n in listed]
        fetch(missing(HubFile(release.repo_id, n) for n in texts), release.name, _silent)
    except HubError:  # this one alone: a table does without
        return _Facts(here, listed)
    weights = [n for n in names if n.endswith(".safetensors")]
    if texts or not weights:
        return _Facts(here, listed)
    shapes = {t.name.lower(): t.shape for t in remote_tensors(release.repo_id, weights)}
    return _Facts(here, listed, *shapes.get("w_enc", (None, None)))


def _silent(done: int, total: int) -> None:
    """A configuration is too small to be told of."""


def _with_configuration(release: Release, facts: _Facts) -> _Facts:
    cfg = configuration(release, release.residual[0])
    return facts._replace(d_in=cfg.get("d_in", facts.d_in), width=cfg.get("d_sae", facts.width))


def _sized(stack: ListedStack, release: Release, facts: _Facts) -> ListedStack:
    names = {name for sae in stack.saes for name in release.files(sae, facts.listed)}
    lacking = names - facts.here.keys()
    download = None
    if names and lacking <= facts.listed.keys():
        download = sum(facts.listed[name] for name in lacking)
    several = len({sae.pattern for sae in release.residual}) > len({s.pattern for s in stack.saes})
    width = stack.width if several else facts.width or stack.width
    return replace(stack, width=width, d_in=facts.d_in, download=download)


def _stacks_of(release: Release, n_blocks: int) -> list[ListedStack]:
    """The choices of a release that cover nearly all blocks."""
    several = max(Counter(sae.depth for sae in release.residual).values()) > 1
    patterns = sorted({sae.pattern for sae in release.residual}) if several else [None]
    stacks = []
    for pattern in patterns:
        saes = tuple(choose(release.residual, pattern, release.name))
        covered = {sae.point.block for sae in saes if sae.point is not None}
        if len(saes) > 1 and len(covered) >= NEARLY_ALL * n_blocks:
            model = str(release.model)
            width = _width(saes[0], release)
            stacks.append(ListedStack(release.name, model, pattern, saes, n_blocks, width))
    return stacks


def _short(model: str | None) -> str:
    return str(model).rpartition("/")[2].lower()


def _width(sae: ListedSAE, release: Release) -> int | None:
    """The number of features that names tell: 16384 for `width_16k`, 81920 for `w80k`."""
    for text in (sae.sae_id, sae.neuronpedia_id or "", release.name, release.repo_id):
        found = _WIDTH.search(text.replace("_", "-").lower())
        if found is not None:
            rough = int(found[1]) * (1000 if found[2] == "k" else 10**6)
            power = 2 ** round(math.log2(rough))
            is_power = abs(power - rough) < 0.05 * rough
            return power if is_power else int(found[1]) * 1024
    return None
