"""What recurs is told from tallies, kept in a file or made on demand: as counted plainly."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sae_graphs.atlas import recurring, tallies
from sae_graphs.atlas.atlas import Atlas
from sae_graphs.atlas.pages import atlas_page
from sae_graphs.atlas.prompts import Asked
from sae_graphs.atlas.store import Manifest, writing
from sae_graphs.errors import SaeGraphsError
from sae_graphs.significance import exceeding
from tests.support.atlases import FACTS, Link, rows_by_hand
from tests.support.slow import first

Graph = tuple[str, dict[str, str], list[Link]]  # a prompt, its categories, its edges


def drawn(seed: int, count: int, *, sorts: bool) -> list[Graph]:
    """Prompts with edges at several tokens, some without a kind; with `sorts` a second column."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        links = [
            (
                f"{layer}.{rng.integers(3)}@{rng.integers(3)}",
                f"{layer + 1}.{rng.integers(3)}@3",
                float(rng.normal()),
            )
            for layer in rng.integers(0, 2, 6)
        ]
        links = list({link[:2]: link for link in links}.values())
        links.append(("token@0", "0.1@0", -1.0))
        kind = (None, "left", "it's", "value")[rng.integers(4)]
        own = {} if kind is None else {"kind": kind}
        own |= {"category": f"s{rng.integers(2)}"} if sorts else {}
        found.append((f"{seed} {number} x y", own, links))
    return found


def put(folder: Path, graphs: Sequence[Graph], names: Sequence[str], *, compact: bool) -> None:
    with writing(folder, Manifest(FACTS, tuple(names))) as store:
        rows = [rows_by_hand(Asked(text, None, own), links) for text, own, links in graphs]
        store.add(rows[::2])
        store.add(rows[1::2])
        if compact:
            store.compact()


FIRST, SECOND = drawn(0, 40, sorts=False), drawn(1, 24, sorts=True)


def atlas_of(folder: Path, shape: str) -> Atlas:
    """`kept`: all in one part; `loose`: none is; `both`: some prompts, and a column, came later."""
    if shape == "both":
        put(folder, FIRST, ["kind"], compact=True)
        put(folder, SECOND, ["category"], compact=False)
    else:
        put(folder, [*FIRST, *SECOND], ["kind", "category"], compact=shape == "kept")
    return Atlas(folder)


@pytest.fixture(scope="module", params=first(1, ["both", "kept", "loose"]))
def atlas(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    return atlas_of(tmp_path_factory.mktemp("made") / "atlas", request.param)


def counted(graphs: Sequence[Graph]) -> dict[tuple[str, str], dict[int, float]]:
    """Plainly: what flows along each edge in each prompt that has it, over its tokens."""
    found: dict[Any, Any] = defaultdict(lambda: defaultdict(float))
    for number, (_, _, links) in enumerate(graphs):
        for source, target, flow in links:
            if not source.startswith("token"):
                found[source.split("@")[0], target.split("@")[0]][number] += flow
    return found


def expected(
    column: str, only: Mapping[str, str], least: int
) -> dict[tuple[str, str], tuple[Any, ...]]:
    """Of each edge: prompts, mean, standard deviation, and its p in each category."""
    graphs = [graph for graph in [*FIRST, *SECOND] if only.items() <= graph[1].items()]
    kinds = [own.get(column) for _, own, _ in graphs]
    sizes = {kind: kinds.count(kind) for kind in set(kinds) - {None}}
    found = {}
    for edge, flows in counted(graphs).items():
        if len(flows) >= least:
            values = np.array(list(flows.values()))
            has = {kind: sum(kinds[at] == kind for at in flows) for kind in sizes}
            total, drawn_ones = sum(sizes.values()), sum(has.values())
            p = {
                kind: exceeding(np.array([has[kind]]), np.array([drawn_ones]), size, total)[0]
                for kind, size in sizes.items()
            }
            spread = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
            found[edge] = (len(values), values.mean(), spread, has, p)
    return found


def test_what_recurs_is_as_counted_plainly(atlas: Atlas) -> None:
    for by, only in [
        ("kind", {}),
        ("category", {}),
        ("kind", {"kind": "left"}),
        ("kind", {"category": "s1"}),
        ("category", {"kind": "it's", "category": "s0"}),
    ]:
        plain = expected(by, only, 2)
        found = atlas.recurring_edges(by=by, category=only, least=2, long=True)
        assert {*zip(found["source"], found["target"], strict=True)} == plain.keys()
        assert len(plain) > 2 and found["prompts"].is_monotonic_decreasing
        for row in found.to_dict("records"):
            prompts, mean, deviation, has, p = plain[row["source"], row["target"]]
            assert (row["prompts"], row["in_category"]) == (prompts, has[row["category"]])
            assert row["mean_effect"] == pytest.approx(mean, rel=1e-9)
            assert row["p"] == pytest.approx(p[row["category"]], rel=1e-9)
            if prompts > 2:
                half = (row["high"] - row["low"]) / 2 * prompts**0.5 / _t(prompts)
                assert half == pytest.approx(deviation, rel=1e-6)


def test_differences_are_as_counted_plainly(atlas: Atlas) -> None:
    found = atlas.differences("it's", "value", least=1)
    graphs = [*FIRST, *SECOND]
    sides = [[graph for graph in graphs if graph[1].get("kind") == it] for it in ("it's", "value")]
    a, b = (counted(side) for side in sides)
    assert {*zip(found["source"], found["target"], strict=True)} == a.keys() | b.keys()
    for row in found.to_dict("records"):
        for side, flows, of in ("a", a, sides[0]), ("b", b, sides[1]):
            own = list(flows.get((row["source"], row["target"]), {}).values())
            mean = np.mean(own) if own else np.nan
            assert (row[f"prompts_{side}"], row[f"share_{side}"]) == (len(own), len(own) / len(of))
            assert row[f"mean_effect_{side}"] == pytest.approx(mean, rel=1e-9, nan_ok=True)


def test_a_part_of_many_is_asked_for_its_tallies_alone(tmp_path: Path) -> None:
    atlas = atlas_of(tmp_path / "made", "kept")
    (part,) = (atlas.folder / "parts").iterdir()
    (part / "edges.parquet").write_bytes(b"gone")  # not read again, but for its columns' names
    assert len(atlas._database.table("FROM tallies WHERE category = 'kind'"))
    assert len(atlas.recurring_edges(least=2)) and len(atlas.differences("left", "it's", least=2))


def test_a_large_part_is_made_again_where_a_column_came_later(tmp_path: Path) -> None:
    """Once, for its tallies: else its edges were counted at each question for good."""
    folder = tmp_path / "made"

    def parts() -> set[str]:
        return {file.parent.name for file in folder.glob(f"parts/*/{tallies.FILE}")}

    put(folder, [*FIRST, *SECOND[:8]], ["kind"], compact=True)
    before = parts()
    put(folder, SECOND[8:10], ["category"], compact=True)
    (made,) = parts()
    assert made not in before
    asked = f"SELECT DISTINCT category FROM read_parquet('{folder}/parts/{made}/{tallies.FILE}')"
    assert {*Atlas(folder).sql(asked)["category"]} == {"kind", "category"}
    put(folder, SECOND[10:12], ["kind", "category"], compact=True)
    assert len(parts()) == 2 and made in parts(), "which is large, and has them"


def test_columns_of_very_many_values_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = atlas_of(tmp_path / "all", "kept")
    monkeypatch.setattr(tallies, "MOST", 2)  # of kinds there are three
    some = atlas_of(tmp_path / "some", "kept")
    (part,) = (some.folder / "parts").iterdir()
    asked = f"SELECT DISTINCT category FROM read_parquet('{part / tallies.FILE}')"
    assert some.sql(asked)["category"].tolist() == ["category"]
    found = some.recurring_edges(least=1)
    pd.testing.assert_frame_equal(found, plain.recurring_edges(least=1), rtol=1e-9)


def test_columns_of_very_many_values_are_compared_by_none_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As subjects are: named, the column is refused; unnamed, another stands for it."""
    graphs = [(text, {"subject": text, **own}, links) for text, own, links in [*FIRST, *SECOND]]
    monkeypatch.setattr(recurring, "VALUES", 10)
    many = recurring.VALUES + 1
    graphs += [(f"more {n} x y", {"subject": f"{n}"}, FIRST[0][2]) for n in range(many)]
    put(tmp_path / "two", graphs, ["subject", "kind"], compact=True)
    atlas = Atlas(tmp_path / "two")
    pd.testing.assert_frame_equal(atlas.recurring_edges(), atlas.recurring_edges(by="kind"))
    assert len(atlas.differences("left", "it's", least=1)) and len(atlas.prompts(category="left"))
    with pytest.raises(SaeGraphsError, match=r"subject has more than 10 values; expected .* kind"):
        atlas.recurring_edges(by="subject")
    alone = [(text, {"subject": own["subject"]}, links) for text, own, links in graphs]
    put(tmp_path / "one", alone, ["subject"], compact=True)
    found = Atlas(tmp_path / "one").recurring_edges(least=1)
    columns = ["source", "target", "prompts", "share", "mean_effect", "low", "high"]
    assert list(found) == columns
    plain = atlas.recurring_edges(least=1, by="kind")[columns]
    pd.testing.assert_frame_equal(found, plain, rtol=1e-9)
    assert Atlas(tmp_path / "one").recurring_edges(category=alone[0][0])["category"].nunique() <= 1
    assert "beyond chance" not in atlas_page(Atlas(tmp_path / "one"), features="", drawn={})


def test_without_categories(tmp_path: Path) -> None:
    graphs: list[Graph] = [(text, {}, links) for text, _, links in FIRST]
    for compact in (True, False):
        put(tmp_path / f"{compact}", graphs, [], compact=compact)
        found = Atlas(tmp_path / f"{compact}").recurring_edges(least=1)
        plain = {edge: len(flows) for edge, flows in counted(graphs).items()}
        ends = zip(found["source"], found["target"], found["prompts"], strict=True)
        assert {(source, into): prompts for source, into, prompts in ends} == plain


def _t(prompts: int) -> float:
    from scipy.stats import t

    return float(t.ppf(0.975, prompts - 1))
