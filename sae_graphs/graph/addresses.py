"""Names of features on Neuronpedia, which shows what a public SAE's features mean.

Nothing here touches the network: `features.neuronpedia.client` does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from sae_graphs.errors import SaeGraphsError, UnknownFeatureError, quoted
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.records import Node

SITE = "https://www.neuronpedia.org"
LISTED = 60  # features of a quick list

_HOSTS = ("www.neuronpedia.org", "neuronpedia.org")
_NAME = r"(?!\.+/)[A-Za-z0-9._-]+"  # a part of an id; never `.` or `..`
_ADDRESS = re.compile(rf"(?P<model>{_NAME})/(?P<source>{_NAME})/(?P<index>[0-9]{{1,15}})")


@dataclass(frozen=True)
class Address:
    """Where a feature is on Neuronpedia: `gpt2-small/5-res-jb`, `10603`. Safe as a path."""

    neuronpedia_id: str
    index: int

    def __post_init__(self) -> None:
        if type(self.index) is not int or not _ADDRESS.fullmatch(str(self)):
            raise SaeGraphsError(
                f"not a feature on Neuronpedia: {self.neuronpedia_id!r:.60}, {self.index!r:.20}; "
                "expected an id such as gpt2-small/5-res-jb, and a whole index"
            )

    def __str__(self) -> str:
        return f"{self.neuronpedia_id}/{self.index}"

    @property
    def model(self) -> str:
        """What the service calls `modelId`: `gpt2-small`."""
        return self.neuronpedia_id.partition("/")[0]

    @property
    def source(self) -> str:
        """The SAE, which the service calls `layer`: `5-res-jb`."""
        return self.neuronpedia_id.partition("/")[2]


# -- features to addresses -------------------------------------------------------------------------


def feature_url(neuronpedia_id: str | None, index: int) -> str | None:
    """The page of a feature, or None for SAEs that Neuronpedia does not hold.

    >>> feature_url("gpt2-small/5-res-jb", 10603)
    'https://www.neuronpedia.org/gpt2-small/5-res-jb/10603'
    """
    return None if neuronpedia_id is None else f"{SITE}/{neuronpedia_id}/{index}"


def address_of(node: Node) -> Address | None:
    """Where the node's feature is on Neuronpedia; None for all other addresses, and for none."""
    try:
        return None if node.neuronpedia is None else parse_address(node.neuronpedia)
    except SaeGraphsError:
        return None


def quick_list_urls(features: Iterable[Address], *, name: str) -> tuple[str, ...]:
    """Pages of Neuronpedia that list features under a name of the user's: one, or more of many.

    The format is the one that the site's quick-list page reads, and sae-lens's
    `get_neuronpedia_quick_list` writes: a name, and JSON of `{modelId, layer, index}`, the index as
    a string. The site shows at most 150 features, and nothing at all where one is not known to it;
    servers and terminals want addresses shorter than that.

    >>> quick_list_urls([Address("gpt2-small/5-res-jb", 7)], name="a b")[0].partition("&")[0]
    'https://www.neuronpedia.org/quick-list/?name=a%20b'
    """
    items = [
        {"modelId": address.model, "layer": address.source, "index": str(address.index)}
        for address in dict.fromkeys(features)
    ]
    named = quote(name.encode("utf-8", "replace"), safe="")
    return tuple(
        f"{SITE}/quick-list/?name={named}&features={quote(_short(part), safe='')}"
        for part in (items[start : start + LISTED] for start in range(0, len(items), LISTED))
    )


def _short(items: list[dict[str, str]]) -> str:
    return json.dumps(items, separators=(",", ":"))


# -- addresses to features -------------------------------------------------------------------------


def is_address(text: object) -> bool:
    """Whether a text is meant as an address rather than as a feature such as `5.10603`."""
    return isinstance(text, str) and "/" in text


def parse_address(text: str) -> Address:
    """A page's address, or its `model/source/index`; raises `SaeGraphsError` for all else.

    With or without scheme and `www.`, query, fragment and a slash at the end.

    >>> parse_address("https://www.neuronpedia.org/gpt2-small/5-res-jb/10603?embed=true")
    Address(neuronpedia_id='gpt2-small/5-res-jb', index=10603)
    >>> str(parse_address("gpt2-small/5-res-jb/10603"))
    'gpt2-small/5-res-jb/10603'
    """
    given = text.strip()
    if not re.match(r"https?://", given, re.IGNORECASE):
        first = given.partition("/")[0].lower()
        given = f"https://{given}" if first in _HOSTS else f"{SITE}/{given}"
    try:
        parts = urlsplit(given)
        host = parts.hostname
    except ValueError:  # such as `https://[/`
        host, parts = None, urlsplit("")
    path = parts.path.removeprefix("/").removesuffix("/").removeprefix("api/feature/")
    found = _ADDRESS.fullmatch(path) if host in _HOSTS else None
    if found is None:
        raise SaeGraphsError(
            f"not a feature on Neuronpedia: {text!r:.120}; expected "
            f"{SITE}/gpt2-small/5-res-jb/10603, or gpt2-small/5-res-jb/10603"
        )
    return Address(f"{found['model']}/{found['source']}", int(found["index"]))


def feature_at(address: str | Address, layers: Mapping[str, str | None]) -> FeatureId:
    """The feature at an address, by the layers' labels and Neuronpedia ids.

    Raises `SaeGraphsError` where the address is none, `UnknownFeatureError` where no layer has
    its id. A stack's layers are `{layer.label: layer.neuronpedia_id for layer in stack.layers}`.

    >>> str(feature_at("gpt2-small/5-res-jb/10603", {"5": "gpt2-small/5-res-jb", "6": None}))
    '5.10603'
    """
    where = parse_address(address) if isinstance(address, str) else address
    for label, neuronpedia_id in layers.items():
        if neuronpedia_id == where.neuronpedia_id:
            return FeatureId(label, where.index)
    known = quoted([known for known in layers.values() if known is not None], 20)
    raise UnknownFeatureError(
        f"no SAE layer is {where.neuronpedia_id} on Neuronpedia; "
        + (f"expected one of {known}" if known else "these SAEs have no pages there")
    )


def layers_of(nodes: Iterable[Node]) -> dict[str, str | None]:
    """Layer label to Neuronpedia id, as the nodes of a graph have them; for `feature_at`."""
    found: dict[str, str | None] = {}
    for node in nodes:
        address = address_of(node)
        if address is not None:
            found[node.feature.layer] = address.neuronpedia_id
    return found
