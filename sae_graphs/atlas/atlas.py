"""`Atlas`: ask the graphs of many prompts, like a database. Torch-free.

Signs are those of the whole project: effects are ablated minus clean, so below 0 a feature supports
the answer, and an edge promotes its target. Prompts are compared by features summed over their
tokens, as prompts of several lengths have no positions in common.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from sae_graphs.atlas import recurring, space
from sae_graphs.atlas.database import Categories, Condition, Database
from sae_graphs.atlas.views import identifier
from sae_graphs.errors import SaeGraphsError, quoted
from sae_graphs.graph.feature_id import OWN_LAYERS, FeatureId
from sae_graphs.keywords import checked

_SIGNS = {"supports": "<", "opposes": ">", "promotes": "<", "suppresses": ">"}


class FeatureUse(NamedTuple):
    """Where a feature matters, as tables, the strongest first.

    `total` is in how many prompts; `prompts`: its places there; `answers` and `tokens`: for which
    answers it matters, and at which tokens it stands; `sources` and `targets`: features with an
    edge to it, and from it. Effects are ablated minus clean, means over prompts: of each prompt the
    mean over the feature's tokens, and of an edge the sum over tokens.
    """

    feature: str
    total: int
    prompts: Any
    answers: Any
    tokens: Any
    sources: Any
    targets: Any


class Atlas:
    """The graphs of many prompts, in the folder that `build_atlas` wrote.

    Tables come as pandas'. Nothing is ever written. Raises `SaeGraphsError` where the folder is no
    atlas, or holds no rows yet.
    """

    def __init__(self, folder: str | Path) -> None:
        self._database = Database(Path(folder))

    def __repr__(self) -> str:
        folder, model = str(self._database.folder), self.facts["model"]
        return f"Atlas({folder!r}: {self.count():,} prompts of {model})"

    @property
    def folder(self) -> Path:
        """Where it is."""
        return self._database.folder

    @property
    def facts(self) -> Mapping[str, Any]:
        """What all rows have in common: model, SAEs, settings, version, digest."""
        return self._database.manifest.facts

    @property
    def categories(self) -> tuple[str, ...]:
        """The names of the columns that were carried along with the prompts."""
        return self._database.categories

    def count(self, category: Categories = None) -> int:
        """How many prompts there are, of a category or of all."""
        return self._database.count(category)

    # -- rows --------------------------------------------------------------------------------------

    def sql(self, query: str, parameters: Sequence[Any] = ()) -> Any:
        """The answer to one SELECT over `prompts`, `nodes`, `edges` and `failures`; where they were
        asked for, `traces`, `sites` and `verdicts`.

        Raises `SaeGraphsError` for what is no SELECT, would write, or reads other files.
        """
        return self._database.asked(query, parameters)

    @checked
    def prompts(
        self,
        *,
        text: str | None = None,
        target: str | None = None,
        category: Categories = None,
        limit: int | None = None,
    ) -> Any:
        """The prompts: those that hold a `text`, whose answer is `target`, of a `category`."""
        conditions = self._of_prompts(target, category)
        if text is not None:
            conditions.append(("contains(p.prompt, ?)", _text("text", text)))
        return self._select("SELECT p.* FROM prompts p", conditions, "p.prompt_id", limit)

    @checked
    def features(
        self,
        feature: str | FeatureId | None = None,
        *,
        layer: str | int | None = None,
        token: str | None = None,
        target: str | None = None,
        category: Categories = None,
        min_effect: float = 0.0,
        sign: Literal["supports", "opposes"] | None = None,
        dense: bool | None = None,
        limit: int | None = None,
    ) -> Any:
        """Features at tokens that some prompt's graph holds, those of the largest effect first.

        `min_effect` is the least |effect on the answer|, in nats; a `sign` is "supports" (below 0)
        or "opposes".
        """
        conditions = self._of_prompts(target, category)
        conditions += [("n.layer NOT IN (?, ?, ?)", *OWN_LAYERS)]
        conditions += self._of_feature("n.layer", 'n."index"', feature)
        if layer is not None:
            conditions.append(("n.layer = ?", self._layer(layer)))
        if token is not None:
            conditions.append(("n.token = ?", _text("token", token)))
        if dense is not None:
            conditions.append(("n.dense = ?", bool(dense)))
        conditions += _of_size("n.effect_on_answer", min_effect, sign, ("supports", "opposes"))
        return self._select(
            "SELECT n.prompt_id, p.prompt, p.target, n.feature, n.position, n.token, n.activation, "
            f"n.effect_on_answer, n.dense, n.relay{self._carried()} FROM nodes n "
            "JOIN prompts p USING (prompt_id)",
            conditions,
            "abs(n.effect_on_answer) DESC NULLS LAST, n.prompt_id, n.layer, n.index, n.position",
            limit,
        )

    @checked
    def edges(
        self,
        source: str | FeatureId | None = None,
        into: str | FeatureId | None = None,
        *,
        layer: str | int | None = None,
        token: str | None = None,
        target: str | None = None,
        category: Categories = None,
        min_effect: float = 0.0,
        sign: Literal["promotes", "suppresses"] | None = None,
        limit: int | None = None,
    ) -> Any:
        """Edges from a `source` `into` another feature, the strongest first.

        `layer` and `token` are the source's, `target` the prompt's answer, `min_effect` the least
        |effect| on the edge's target; a `sign` is "promotes" (below 0) or "suppresses".
        """
        conditions = self._of_prompts(target, category)
        conditions += self._of_feature("e.source_layer", "e.source_index", source)
        conditions += self._of_feature("e.target_layer", "e.target_index", into)
        if layer is not None:
            conditions.append(("e.source_layer = ?", self._layer(layer)))
        if token is not None:
            conditions.append(("p.tokens[e.source_position + 1] = ?", _text("token", token)))
        conditions += _of_size("e.effect", min_effect, sign, ("promotes", "suppresses"))
        return self._select(
            f"SELECT e.*, p.prompt, p.target AS answer{self._carried()} FROM edges e "
            "JOIN prompts p USING (prompt_id)",
            conditions,
            "e.strength DESC, e.prompt_id, e.source_layer, e.source_index, e.source_position, "
            "e.target_layer, e.target_index, e.target_position",
            limit,
        )

    @checked
    def sites(
        self,
        *,
        sweep: str | None = None,
        role: str | None = None,
        target: str | None = None,
        category: Categories = None,
        limit: int | None = None,
    ) -> Any:
        """Where restoring a state brings the answer of a corrupted prompt back, most first.

        `restores` is what it adds to the answer's log-odds, in nats, and `share` that of what the
        corruption takes; below 0 it takes the answer further away. A `sweep` is "state" (the input
        of a block), "mlp" or "attention", a `role` "subject", "read" or "other". Raises
        `SaeGraphsError` where the prompts were not traced.
        """
        conditions = self._of_prompts(target, category)
        for name, value in (("sweep", sweep), ("role", role)):
            if value is not None:
                conditions.append((f"s.{name} = ?", _text(name, value)))
        order = "abs(s.restores) DESC, s.prompt_id, s.sweep, s.position, s.block"
        return self._beside("sites", "trace", conditions, order, limit)

    @checked
    def traces(
        self,
        *,
        target: str | None = None,
        category: Categories = None,
        limit: int | None = None,
    ) -> Any:
        """Each prompt's trace: the answer's log-odds clean and corrupted, where it is handed over.

        Raises `SaeGraphsError` where the prompts were not traced.
        """
        conditions = self._of_prompts(target, category)
        return self._beside("traces", "trace", conditions, "s.prompt_id", limit)

    @checked
    def verdicts(
        self,
        *,
        claim: str | None = None,
        supported: bool | None = None,
        target: str | None = None,
        category: Categories = None,
        limit: int | None = None,
    ) -> Any:
        """What validation says of each graph and its paths, as `sg.verdicts` has it.

        A `claim` is "graph" or "path", of graphs of effects "component" or "path". `effect` is
        ablated minus clean, in nats. Raises `SaeGraphsError` where the graphs were not validated.
        """
        conditions = self._of_prompts(target, category)
        if claim is not None:
            conditions.append(("s.claim = ?", _text("claim", claim)))
        if supported is not None:
            conditions.append(("s.supported = ?", bool(supported)))
        return self._beside("verdicts", "validate", conditions, "s.prompt_id, s.unit", limit)

    # -- across prompts ----------------------------------------------------------------------------

    @checked
    def recurring_edges(
        self,
        *,
        by: str | None = None,
        category: Categories = None,
        least: int = 5,
        long: bool = False,
        limit: int | None = None,
    ) -> Any:
        """Edges that at least so many prompts have, those of most prompts first.

        With the number and share of prompts, the mean of what each prompt has (on the answer
        through the edge, in nats; else on its target), with a 95 % interval, and the category of
        `by` (the first, but for `subject`) in which it occurs most beyond chance: p by drawing
        prompts at random (hypergeometric), q over all edges and categories. `long` has a row for
        each category. Of a column with more than 100 values edges have no category; raises
        `SaeGraphsError` where it was named.
        """
        return recurring.edges(self._database, by, category, least, long, limit)

    @checked
    def differences(self, a: str, b: str, *, by: str | None = None, least: int = 5) -> Any:
        """Edges that prompts of category `a` have oftener than those of `b`, or less often.

        Shares and mean effects in both, p by Fisher's exact test in both directions (twice the
        smaller of the two, at most 1), q over all edges.
        """
        return recurring.differences(self._database, a, b, by, least)

    @checked
    def similar(self, prompt_id: str, *, limit: int = 10) -> Any:
        """The other prompts whose graphs share most with this one's: weighted Jaccard over edges.

        Each edge weighs what flows along it, over all tokens; 1 is the same graph.
        """
        database = self._database
        recurring.check_count("limit", limit)
        if not database.one("SELECT count(*) FROM prompts WHERE prompt_id = ?", [str(prompt_id)]):
            raise SaeGraphsError(
                f"no prompt {prompt_id!r:.40} in {database.folder}; .prompts() lists their ids"
            )
        return self._table(
            recurring.SIMILAR.format(carried=self._carried()), [prompt_id, prompt_id, limit]
        )

    @checked
    def feature(
        self, feature: str | FeatureId, *, limit: int = 20, most: int = 10_000
    ) -> FeatureUse:
        """The prompts where a feature matters, at most so many places, the strongest first; for
        which answers, from which tokens, with which features, at most `limit` of each."""
        recurring.check_count("limit", limit)
        recurring.check_count("most", most)
        found = self._known(feature)
        ends = [found.layer, found.index]
        own = "n.layer = ? AND n.index = ?"
        grouped = recurring.USES.format(own=own)
        return FeatureUse(
            str(found),
            self._database.one(f"SELECT count(DISTINCT prompt_id) FROM nodes n WHERE {own}", ends),
            self.features(found, limit=most),
            self._table(grouped.format(what="p.target", name="answer"), [*ends, limit]),
            self._table(grouped.format(what="n.token", name="token"), [*ends, limit]),
            self._table(recurring.NEIGHBOURS.format(mine="target", other="source"), [*ends, limit]),
            self._table(recurring.NEIGHBOURS.format(mine="source", other="target"), [*ends, limit]),
        )

    @checked
    def tokens_of(
        self, features: str | Iterable[str | FeatureId], *, category: Categories = None
    ) -> Any:
        """The tokens at which each of these features stands, and in how many prompts (of a
        category), those of most prompts first. The answer stands at what is answered."""
        return recurring.tokens(self._database, features, category)

    @checked
    def separation(
        self, *, by: str | None = None, shuffles: int = 200, most: int = 4000, seed: int = 0
    ) -> space.Separation:
        """Whether prompts of a category have graphs alike: see `Separation`."""
        return space.separation(self._database, by, shuffles, most, seed)

    @checked
    def map(self, *, most: int = 4000, seed: int = 0) -> Any:
        """Two coordinates of each prompt, by the two largest principal components of its edges."""
        return space.coordinates(self._database, most, seed)

    # -- inside ------------------------------------------------------------------------------------

    def _table(self, query: str, parameters: Sequence[Any]) -> Any:
        return self._database.table(query, parameters)

    def _select(
        self, what: str, conditions: Sequence[Condition], order: str, limit: int | None
    ) -> Any:
        where = " AND ".join(each[0] for each in conditions) or "true"
        parameters = [value for each in conditions for value in each[1:]]
        ending = "" if limit is None else f" LIMIT {recurring.check_count('limit', limit)}"
        return self._table(f"{what} WHERE {where} ORDER BY {order}{ending}", parameters)

    def _beside(
        self, table: str, asked: str, conditions: list[Condition], order: str, limit: int | None
    ) -> Any:
        """The rows of a table that is there where it was asked for."""
        if table not in self._database.manifest.tables:
            raise SaeGraphsError(
                f"{self.folder} has no {table}: it was built without; build one with --{asked} "
                f"({asked}=True)"
            )
        what = (
            f"SELECT s.*, p.prompt, p.target{self._carried()} FROM {table} s "
            "JOIN prompts p USING (prompt_id)"
        )
        return self._select(what, conditions, order, limit)

    def _carried(self) -> str:
        return "".join(f", p.{identifier(name)}" for name in self.categories)

    def _of_prompts(self, target: str | None, category: Categories) -> list[Condition]:
        return [
            *([] if target is None else [("p.target = ?", _text("target", target))]),
            *self._database.chosen(category),
        ]

    def _of_feature(
        self, layer: str, index: str, feature: str | FeatureId | None
    ) -> list[Condition]:
        if feature is None:
            return []
        found = self._known(feature)
        return [(f"{layer} = ?", found.layer), (f"{index} = ?", found.index)]

    def _known(self, feature: str | FeatureId) -> FeatureId:
        found = FeatureId.parse(feature)
        if found.is_feature:
            self._layer(found.layer)
        return FeatureId(found.layer, found.index)

    def _layer(self, layer: str | int) -> str:
        labels = [str(label) for label, _ in self.facts["layers"]]
        if str(layer) not in labels:
            raise SaeGraphsError(f"no SAE layer {layer!r:.40}; the atlas has {quoted(labels, 40)}")
        return str(layer)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise SaeGraphsError(f"{name} is {value!r:.40}; expected text")
    return value


def _of_size(value: str, least: float, sign: str | None, signs: tuple[str, str]) -> list[Condition]:
    if sign is not None and sign not in signs:
        raise SaeGraphsError(f"sign is {sign!r:.40}; expected {signs[0]} or {signs[1]}")
    if isinstance(least, bool) or not isinstance(least, int | float) or not least >= 0:
        raise SaeGraphsError(f"min_effect is {least!r:.40}; expected a number, 0 or more")
    found: list[Condition] = [] if not least else [(f"abs({value}) >= ?", float(least))]
    return found if sign is None else [*found, (f"{value} {_SIGNS[sign]} 0",)]
