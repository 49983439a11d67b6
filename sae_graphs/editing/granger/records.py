"""`GrangerReport`: what Granger tests found, as data. Torch-free."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sae_graphs.editing.granger.settings import GrangerSettings
from sae_graphs.errors import GraphFileError, SaeGraphsError, quoted
from sae_graphs.files import save_at
from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.late import view
from sae_graphs.schema import plain, read_json, rebuilt

SCHEMA = "sae_graphs.granger/1"
FILE_NAME = "granger.json"
Kind = Literal["feature", "projection", "attended", "norm"]
KINDS: tuple[Kind, ...] = ("feature", "projection", "attended", "norm")
Verdict = Literal["forward", "backward", "both", "none", "untestable"]
_REMEDY = "test the series again"
_NAME = re.compile(r"(?:(?P<kind>[a-z]+):)?(?P<rest>.+)")


@dataclass(frozen=True)
class SeriesName:
    """What a series is of: `2.232`, `projection:2.232`, `attended:2.232`, or `norm:2`.

    A feature's activation; the stream's projection on the feature's decoder direction; what the
    next block's attention brings of the feature to each token, heads averaged; the stream's norm at
    an SAE layer.
    """

    kind: Kind
    layer: str
    index: int | None = None

    def __str__(self) -> str:
        place = self.layer if self.index is None else f"{self.layer}.{self.index}"
        return place if self.kind == "feature" else f"{self.kind}:{place}"

    @classmethod
    def parse(cls, text: str | FeatureId | SeriesName) -> SeriesName:
        """A series from its name; raises `SaeGraphsError` where the text is none.

        >>> SeriesName.parse("norm:2"), str(SeriesName.parse(" attended:2.232"))
        (SeriesName(kind='norm', layer='2', index=None), 'attended:2.232')
        """
        if isinstance(text, SeriesName):
            return text
        found = _NAME.fullmatch(str(text).strip())
        kind = "" if found is None else found["kind"] or "feature"
        if found is None or kind not in KINDS:
            raise SaeGraphsError(
                f"not a series: {text!r:.60}; expected a feature such as 2.232, or one of "
                f"{quoted([f'{kind}:2.232' for kind in KINDS[1:3]])}, norm:2"
            )
        if kind == "norm":
            return cls("norm", found["rest"])
        feature = FeatureId.parse(found["rest"])
        if not feature.is_feature or feature.position is not None:
            raise SaeGraphsError(
                f"not a series: {text!r:.60}; expected a feature without a position, such as 2.232"
            )
        return cls(kind, feature.layer, feature.index)


@dataclass(frozen=True)
class Series:
    """A series that was tested: at how many tokens, and in how many texts, it is not 0.

    `meaning` is what its feature peaks on, as far as that is known.
    """

    name: str
    tokens: int
    texts: int
    meaning: str = ""


@dataclass(frozen=True)
class GrangerTest:
    """One direction: does the past of the one add to what the other's own past predicts?

    `share` is the partial R squared: of what the restricted model leaves, so much is explained.
    `wald` is the statistic of the texts' scores and `p` its p, which the verdict rests on;
    `p_parametric` is that of the F distribution, `q` over all tests of the report.
    `coefficients` are the source's in a linear model, at each of the `lags`; of a nonlinear one
    there are none.
    """

    f: float
    share: float
    wald: float
    p: float
    p_parametric: float
    q: float
    lags: tuple[int, ...]
    coefficients: tuple[float, ...] = ()


@dataclass(frozen=True)
class Pair:
    """Two series, tested both ways; `reason` says why the way there could not be, `reason_back` the
    way back."""

    source: str
    target: str
    forward: GrangerTest | None = None
    backward: GrangerTest | None = None
    reason: str = ""
    reason_back: str = ""

    def verdict(self, level: float) -> Verdict:
        """Which of the two predicts the other, where q is at most `level`; "untestable" where none
        is found to, and a way could not be tested."""
        there = self.forward is not None and self.forward.q <= level
        back = self.backward is not None and self.backward.q <= level
        if there and back:
            return "both"
        if there or back:
            return "forward" if there else "backward"
        return "untestable" if self.forward is None or self.backward is None else "none"


@dataclass(frozen=True)
class GrangerReport:
    """Granger tests of pairs of series over a panel of texts.

    `about` says in words which pairs were asked for, `texts` which texts these are; `n_texts` of
    them were long enough, and have `n_tokens` tokens after their first ones. `criteria` are BIC at
    each lag from 1 on, summed over pairs, empty where the lag was given. `pairs` stand by the share
    that the source explains of the target, the largest first.
    """

    settings: GrangerSettings
    model: str
    saes: str
    about: str
    texts: str
    n_texts: int
    n_tokens: int
    lag: int
    criteria: tuple[float, ...]
    series: tuple[Series, ...]
    pairs: tuple[Pair, ...]
    warnings: tuple[str, ...] = ()
    made: Mapping[str, Any] = field(default_factory=dict)  # seconds, versions

    def __post_init__(self) -> None:
        known = {it.name for it in self.series}
        unknown = {name for it in self.pairs for name in (it.source, it.target)} - known
        if unknown:
            raise SaeGraphsError(f"pairs name {quoted(sorted(unknown))}, which are no series here")
        if self.lag < 1 or (self.criteria and self.lag > len(self.criteria)):
            raise SaeGraphsError(
                f"the lag is {self.lag}, and there are {len(self.criteria)} criteria; expected one "
                "for each lag up to the largest"
            )

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {name}" for name, count in self.counts.items() if count)
        return f"<GrangerReport of {self.n_texts} texts by {self.model!r:.40}: {counts}>"

    def _repr_html_(self) -> str:
        return str(view("granger_html")(self))

    @property
    def counts(self) -> dict[Verdict, int]:
        """How many pairs got each verdict."""
        found: dict[Verdict, int] = dict.fromkeys(
            ("forward", "backward", "both", "none", "untestable"), 0
        )
        for pair in self.pairs:
            found[pair.verdict(self.settings.level)] += 1
        return found

    def pair(self, source: str, target: str) -> Pair:
        """The pair of these two series; raises `SaeGraphsError` where it was not tested."""
        for it in self.pairs:
            if (it.source, it.target) == (str(source), str(target)):
                return it
        raise SaeGraphsError(f"{source} and {target} were not tested as a pair")

    def to_pandas(self) -> Any:
        """A row a pair: verdict, and both directions' numbers, a table of pandas."""
        import pandas as pd

        rows = []
        for pair in self.pairs:
            row: dict[str, Any] = {"source": pair.source, "target": pair.target}
            row["verdict"] = pair.verdict(self.settings.level)
            for name in ("forward", "backward"):
                test: GrangerTest | None = getattr(pair, name)
                for column in ("f", "share", "wald", "p", "p_parametric", "q"):
                    row[f"{name}_{column}"] = None if test is None else getattr(test, column)
            rows.append({**row, "reason": pair.reason, "reason_back": pair.reason_back})
        return pd.DataFrame(rows)

    def save(self, path: str | Path) -> Path:
        """Write it as `granger.json` into a folder, or to a file; returns the file."""
        return save_at(path, FILE_NAME, to_bytes(self))

    @classmethod
    def load(cls, path: str | Path) -> GrangerReport:
        """Read it from a file, or from the folder that it was written into.

        Raises `GraphFileError` where there is none, or where it is damaged or of another kind.
        """
        file = Path(path)
        file = file / FILE_NAME if file.is_dir() else file
        held = read_json(file, give="a folder that Granger tests were saved in", remedy=_REMEDY)
        schema = held.pop("schema", None) if isinstance(held, dict) else None
        if schema != SCHEMA:
            raise GraphFileError(
                f"{file}: schema is {schema!r:.60}, expected {SCHEMA!r}; {_REMEDY}"
            )
        found: GrangerReport = rebuilt(cls, held, str(file), remedy=_REMEDY)
        return found


def to_bytes(report: GrangerReport) -> bytes:
    """The contents of `granger.json`: ASCII, so that no text can spoil it."""
    text = json.dumps({"schema": SCHEMA, **plain(report)}, allow_nan=False, indent=1)
    return (text + "\n").encode("ascii")
