"""Every rule that a file must meet to be shown by circuit-tracer's viewer and by Neuronpedia.

Nothing here knows how such files are written: it reads one as a viewer would. One rule is weaker
than in circuit-tracer's files: the id of a logit must begin with some layer above all others, not
with the number of the model's layers plus 1, which no file says.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

SMALLEST, LARGEST = 1_000, 100_000_000  # bytes that Neuronpedia takes
EXACT = 2**53 - 1  # the largest whole number that JavaScript does not round

_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_SCAN = re.compile(r"[A-Za-z0-9_.-]+|\./[A-Za-z0-9_./-]+")  # a model, or a folder beside the page
_PROBABILITY = re.compile(r"\(p=(0|1|[01]\.[0-9]+)\)")
_FEATURE, _ERROR = "cross layer transcoder", "mlp reconstruction error"
_TYPES = (_FEATURE, _ERROR, "embedding", "logit")
_WORDS: dict[Any, str] = {
    str: "a text",
    int: "a whole number",
    dict: "an object",
    list: "a list",
    (int, float): "a number",
    (str, int): "a text or a whole number",
}


def broken_rules(data: Any, *, size: int | None = None) -> tuple[str, ...]:
    """What a viewer would stumble over, one line each; empty for a file that it shows in full.

    `data` is the file's JSON, `size` how many bytes it has (not checked where it is None).
    """
    found = list(_of_size(size))
    if not isinstance(data, dict):
        return (*found, f"the file holds {data!r:.40}, not an object")
    damaged: list[str] = []
    for name, kind in (("metadata", dict), ("qParams", dict), ("nodes", list), ("links", list)):
        damaged += _of_kind(data, name, kind, "the file")
    if not damaged:
        damaged += _of_metadata(data["metadata"], uploaded=size is not None)
        damaged += (line for i, node in enumerate(data["nodes"]) for line in _shape(node, i))
    if damaged:  # the rest can be asked only of what has the right kinds
        return (*found, *damaged)
    found += _of_nodes(data["nodes"], data["metadata"])
    ids = {node["node_id"] for node in data["nodes"]}
    found += _of_links(data["links"], ids)
    found += _of_state(data["qParams"], ids)
    return tuple(found)


def _of_size(size: int | None) -> Iterator[str]:
    if size is not None and not SMALLEST <= size <= LARGEST:
        yield f"the file has {size:,} bytes; Neuronpedia takes 1 KB to 100 MB"


def _of_kind(
    values: dict[str, Any], name: str, kind: Any, where: str, *, optional: bool = False
) -> Iterator[str]:
    """The value is there, unless it is optional, and of its kind; a bool is no number."""
    if name not in values:
        if not optional:
            yield f"{where} has no {name}"
        return
    value = values[name]
    if isinstance(value, bool) or not isinstance(value, kind):
        yield f"{name} of {where} is {value!r:.40}, not {_WORDS[kind]}"
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{name} of {where} is {value}, which JSON cannot hold"


# -- metadata --------------------------------------------------------------------------------------


def _of_metadata(values: dict[str, Any], *, uploaded: bool) -> Iterator[str]:
    for name, rule in (("slug", _NAME), ("scan", _NAME if uploaded else _SCAN)):
        if not isinstance(values.get(name), str) or not rule.fullmatch(values[name]):
            yield f"{name} is {values.get(name)!r:.60}; letters, digits, _ . and - are allowed"
    yield from _of_kind(values, "prompt", str, "metadata")
    yield from _of_kind(values, "prompt_tokens", list, "metadata")
    tokens = values.get("prompt_tokens")
    if isinstance(tokens, list) and (not tokens or not all(isinstance(t, str) for t in tokens)):
        yield "prompt_tokens are not texts, or there is none"
    kinds: dict[str, Any] = {
        "schema_version": int,
        "node_threshold": (int, float),
        "transcoder_list": list,
        "feature_details": dict,
        "info": dict,
        "generation_settings": dict,
        "pruning_settings": dict,
    }
    for name, kind in kinds.items():
        yield from _of_kind(values, name, kind, "metadata", optional=True)
    if not all(isinstance(name, str) for name in _listed(values, "transcoder_list")):
        yield "transcoder_list holds something that is not a text"
    details, info = _object(values, "feature_details"), _object(values, "info")
    yield from _of_info(info)
    yield from _of_details(details, info, values.get("schema_version"))


def _of_info(info: dict[str, Any]) -> Iterator[str]:
    for name in ("description", "creator_name", "creator_url", "neuronpedia_source_set"):
        yield from _of_kind(info, name, str, "info", optional=True)
    yield from _of_kind(info, "create_time_ms", (int, float), "info", optional=True)
    yield from _of_kind(info, "source_urls", list, "info", optional=True)
    yield from _of_kind(info, "generator", dict, "info", optional=True)
    if not all(isinstance(url, str) for url in _listed(info, "source_urls")):
        yield "source_urls hold something that is not a text"
    for name in ("name", "version", "url", "email"):
        yield from _of_kind(_object(info, "generator"), name, str, "generator", optional=True)


def _of_details(details: dict[str, Any], info: dict[str, Any], version: Any) -> Iterator[str]:
    for name in ("feature_json_base_url", "neuronpedia_source_set"):
        yield from _of_kind(details, name, str, "feature_details", optional=True)
    here, there = details.get("neuronpedia_source_set"), info.get("neuronpedia_source_set")
    if here != there:
        yield (
            f"neuronpedia_source_set is {here!r:.40} in feature_details and {there!r:.40} in "
            "info; both places are read"
        )
    if version == 1 and "feature_json_base_url" in details:
        yield "schema_version 1 turns feature_json_base_url off"


def _object(values: dict[str, Any], name: str) -> dict[str, Any]:
    value = values.get(name)
    return value if isinstance(value, dict) else {}


def _listed(values: dict[str, Any], name: str) -> list[Any]:
    value = values.get(name)
    return value if isinstance(value, list) else []


# -- nodes -----------------------------------------------------------------------------------------


def _shape(node: Any, place: int) -> Iterator[str]:
    """The required keys, the optional ones where they are, and their kinds."""
    where = f"node {place}"
    if not isinstance(node, dict):
        yield f"{where} is {node!r:.40}, not an object"
        return
    for name in ("node_id", "feature_type", "jsNodeId", "clerp"):
        yield from _of_kind(node, name, str, where)
    yield from _of_kind(node, "layer", (str, int), where)
    yield from _of_kind(node, "ctx_idx", int, where)
    for name, kind, optional in (
        ("feature", int, False),
        ("influence", (int, float), True),
        ("activation", (int, float), True),
        ("token_prob", (int, float), True),
        ("run_idx", int, True),
        ("reverse_ctx_idx", int, True),
    ):
        if name not in node or node[name] is not None:
            yield from _of_kind(node, name, kind, where, optional=optional)
    if not isinstance(node.get("is_target_logit", False), bool):
        yield f"is_target_logit of {where} is neither true nor false"


def _of_nodes(nodes: list[dict[str, Any]], metadata: dict[str, Any]) -> Iterator[str]:
    tokens = metadata["prompt_tokens"]
    others = [node for node in nodes if node["feature_type"] != "logit"]
    top = max((_row(node) for node in others), default=-1)
    if top < 1:
        yield "no node but logits has a layer of 1 or more, which Neuronpedia needs"
    seen: set[str] = set()
    for node in nodes:
        name = node["node_id"]
        if name in seen:
            yield f"node_id {name} is there twice"
        seen.add(name)
        if not 0 <= node["ctx_idx"] < len(tokens):
            yield f"ctx_idx of {name} is {node['ctx_idx']}, outside the {len(tokens)} tokens"
        yield from _of_type(node, top)
    yield from _of_frequency(nodes, len(tokens))
    if "node_threshold" in metadata:
        able = [node for node in others if node["feature_type"] != "embedding"]
        hidden = [node["node_id"] for node in able if node.get("influence") is None]
        if hidden:
            yield f"node_threshold hides {hidden[0]}, which has no influence"


def _row(node: dict[str, Any]) -> int:
    """The layer as a viewer counts it; -1 for what is no number."""
    text = str(node["layer"])
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else -1


def _of_type(node: dict[str, Any], top: int) -> Iterator[str]:
    """A node's id, number, layer and text, by its type."""
    name, kind = node["node_id"], node["feature_type"]
    found = re.fullmatch(r"(E|[0-9]+)_(-1|[0-9]+)_([0-9]+)", name)
    if kind not in _TYPES:
        yield f"feature_type of {name} is {kind!r:.40}; viewers know {', '.join(_TYPES)}"
    elif found is None:
        yield f"node_id {name!r:.40} is not layer_number_position"
    elif int(found[3]) != node["ctx_idx"]:
        yield f"node_id {name} says another position than its ctx_idx, {node['ctx_idx']}"
    elif kind == "embedding":
        if (found[1], node["layer"], node["feature"]) != ("E", "E", node["ctx_idx"]):
            yield f"embedding {name}: its layer is E, and its feature its position"
    elif kind == "logit":
        yield from _of_logit(node, found, top)
    elif _row(node) < 0 or found[1] != str(node["layer"]):
        yield f"node_id {name} says another layer than its own, {node['layer']!r:.20}"
    elif kind == _ERROR:
        if found[2] != "-1" or node["feature"] != -1:
            yield f"error node {name}: its number and its feature are -1"
    else:
        yield from _of_feature(node, int(found[1]), int(found[2]))


def _of_feature(node: dict[str, Any], layer: int, index: int) -> Iterator[str]:
    total = layer + index
    paired = total * (total + 1) // 2 + index
    if index < 0 or node["feature"] != paired:
        yield f"feature of {node['node_id']} is {node['feature']}, not cantor, {paired}"
    elif paired > EXACT:
        yield f"feature of {node['node_id']} is {paired}, which JavaScript rounds"


def _of_logit(node: dict[str, Any], found: re.Match[str], top: int) -> Iterator[str]:
    name = node["node_id"]
    if _row(node) != top + 1:
        yield f"logit {name} is in layer {node['layer']!r:.20}, not in the one on top, {top + 1}"
    if found[1] == "E" or int(found[1]) <= top:
        yield f"logit {name}: its id begins with a layer above all others"
    if node["feature"] is None or str(node["feature"]) != found[2]:
        yield f"logit {name}: its feature is the token's id"
    if node["clerp"] and _PROBABILITY.match(_after_token(node["clerp"])) is None:
        yield f"clerp of logit {name} is {node['clerp']!r:.60}, without the likes of (p=0.950)"


def _after_token(clerp: str) -> str:
    """From where a viewer looks for the probability: the first `(p=`."""
    return clerp[clerp.find("(p=") :] if "(p=" in clerp else ""


def _of_frequency(nodes: list[dict[str, Any]], tokens: int) -> Iterator[str]:
    places: dict[tuple[str, Any], set[int]] = defaultdict(set)
    for node in nodes:
        if node["feature_type"] != _ERROR:
            places[str(node["layer"]), node["feature"]].add(node["ctx_idx"])
    for (layer, feature), found in places.items():
        if 3 * len(found) > 2 * tokens:
            yield (
                f"feature {feature} of layer {layer} is at {len(found)} of {tokens} positions; "
                "viewers drop what is at more than two thirds"
            )


# -- links and the saved view ----------------------------------------------------------------------


def _of_links(links: list[Any], ids: set[str]) -> Iterator[str]:
    for place, link in enumerate(links):
        where = f"link {place}"
        if not isinstance(link, dict):
            yield f"{where} is {link!r:.40}, not an object"
            continue
        for end in ("source", "target"):
            if not isinstance(link.get(end), str) or link[end] not in ids:
                yield f"{end} of {where} is {link.get(end)!r:.40}, which is no node"
        yield from _of_kind(link, "weight", (int, float), where)


def _of_state(state: dict[str, Any], ids: set[str]) -> Iterator[str]:
    for name in ("clickedId", "sg_pos"):
        yield from _of_kind(state, name, str, "qParams", optional=True)
    if state.get("linkType", "both") != "both":
        yield f"linkType is {state['linkType']!r:.40}, not 'both'"
    if isinstance(clicked := state.get("clickedId"), str) and clicked and clicked not in ids:
        yield f"clickedId is {clicked!r:.40}, which is no node"
    for name in ("pinnedIds", "supernodes"):
        yield from _of_kind(state, name, list, "qParams", optional=True)
    for pinned in _listed(state, "pinnedIds"):
        if not isinstance(pinned, str) or pinned not in ids:
            yield f"pinnedIds hold {pinned!r:.40}, which is no node"
    for group in _listed(state, "supernodes"):
        texts = isinstance(group, list) and all(isinstance(part, str) for part in group)
        if not texts or len(group) < 2:
            yield f"a supernode is {group!r:.60}, not a label and the ids of nodes"
        elif unknown := [part for part in group[1:] if part not in ids]:
            yield f"supernode {group[0]!r:.40} holds {unknown[0]!r:.40}, which is no node"
