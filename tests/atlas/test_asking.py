"""What an atlas answers, over graphs made by hand with known answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sae_graphs.atlas.atlas import Atlas
from sae_graphs.errors import SaeGraphsError
from tests.support.atlases import Link, atlas_by_hand
from tests.support.slow import first

SHARED: Link = ("0.1@1", "1.2@1", -1.0)
OWN: Link = ("0.3@1", "1.4@2", -2.0)
OTHER: Link = ("0.5@1", "1.6@2", 0.5)
# Six prompts of one kind, six of the other. 0.1 -> 1.2 is in all; each kind has an edge of its own.
GRAPHS = {
    **{f"a {n} x": ("left", [("token@1", "0.1@1", -9.0), SHARED, OWN]) for n in range(6)},
    **{f"b {n} x": ("right", [SHARED, OTHER]) for n in range(6)},
}


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    return Atlas(atlas_by_hand(tmp_path_factory.mktemp("atlas") / "made", GRAPHS, parts=4))


def test_what_recurs_is_counted_once_a_prompt(atlas: Atlas) -> None:
    found = atlas.recurring_edges()
    assert found[["source", "target", "prompts"]].values.tolist() == [
        ["0.1", "1.2", 12],
        ["0.3", "1.4", 6],
        ["0.5", "1.6", 6],
    ]
    assert found["share"].tolist() == [1.0, 0.5, 0.5]
    assert found["mean_effect"].tolist() == [-1.0, -2.0, 0.5]
    assert found["low"].tolist() == found["high"].tolist() == [-1.0, -2.0, 0.5]  # no spread
    own = found.iloc[1]
    # All six of the six that have it: 1 of the C(12, 6) = 924 draws.
    assert (own["category"], own["in_category"], own["expected"]) == ("left", 6, 3.0)
    assert own["p"] == pytest.approx(1 / 924)
    assert own["q"] == pytest.approx(6 * (1 / 924) / 2)  # of six tests the two smallest are equal
    assert found.iloc[0]["p"] == 1.0


def test_every_category_has_a_row_where_asked(atlas: Atlas) -> None:
    found = atlas.recurring_edges(long=True).set_index(["source", "category"])
    assert len(found) == 6
    assert found.loc[("0.3", "right"), "in_category"] == 0
    assert found.loc[("0.3", "right"), "p"] == 1.0


def test_tokens_are_summed_before_prompts_are_averaged(tmp_path: Path) -> None:
    graphs: dict[str, Any] = {
        "one x y z": ("left", [("0.1@1", "1.2@2", -1.0), ("0.1@2", "1.2@3", -2.0)]),
        "two x y z": ("left", [("0.1@1", "1.2@2", -5.0)]),
        "six x y z": ("left", [("0.1@1", "1.2@2", -7.0)]),
    }
    found = Atlas(atlas_by_hand(tmp_path / "made", graphs)).recurring_edges(least=1)
    assert found["prompts"].tolist() == [3]
    assert found["mean_effect"].tolist() == [-5.0]  # of -3, -5 and -7
    half = 4.302652729911275 * 2.0 / 3**0.5  # t of 2 degrees of freedom, standard deviation 2
    assert found["low"].tolist() == pytest.approx([-5 - half])
    assert found["high"].tolist() == pytest.approx([-5 + half])


def test_differences(atlas: Atlas) -> None:
    found = atlas.differences("left", "right").set_index("source")
    assert found.loc["0.3", ["prompts_a", "prompts_b", "share_a", "share_b"]].tolist() == [
        *(6, 0, 1.0, 0.0)
    ]
    assert found.loc["0.3", "p"] == pytest.approx(2 / 924)
    assert found.loc["0.1", "p"] == 1.0
    assert found.loc["0.1", ["mean_effect_a", "mean_effect_b"]].tolist() == [-1.0, -1.0]


def test_similar_prompts_by_weighted_jaccard(atlas: Atlas) -> None:
    prompts = atlas.prompts().set_index("prompt")["prompt_id"]
    found = atlas.similar(prompts["a 0 x"], limit=20).set_index("prompt")
    assert len(found) == 11 and "a 0 x" not in found.index
    assert found.loc["a 5 x", "similarity"] == 1.0
    assert found.loc["b 0 x", "similarity"] == pytest.approx(1.0 / (1.0 + 2.0 + 0.5))
    assert found.loc["b 0 x", "shared_edges"] == 1


def test_a_features_page(atlas: Atlas) -> None:
    use = atlas.feature("1.2")
    assert (use.total, len(use.prompts)) == (12, 12)
    assert len(atlas.feature("1.2", most=5).prompts) == 5
    assert use.answers.values.tolist() == [[" x", 12, -1.0, 2.0]]
    assert sorted(use.tokens["token"]) == [str(n) for n in range(6)]
    assert use.sources[["feature", "prompts", "mean_flow"]].values.tolist() == [["0.1", 12, -1.0]]
    assert len(use.targets) == 0
    assert len(atlas.feature("2.77").prompts) == 0


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 12 * 2 * 2),
        ({"layer": 0}, 24),
        ({"feature": "0.3"}, 6),
        ({"token": "3"}, 6),
        ({"category": "left"}, 24),
        ({"category": {"kind": "right"}, "layer": "1"}, 12),
        ({"target": " y"}, 0),
        ({"min_effect": 1.0}, 48),
        ({"min_effect": 1.1}, 0),
        ({"sign": "opposes"}, 0),
        ({"sign": "supports", "limit": 7}, 7),
        ({"dense": True}, 0),
    ],
)
def test_filters_of_features(atlas: Atlas, options: dict[str, Any], count: int) -> None:
    assert len(atlas.features(**options)) == count


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 30),
        ({"source": "0.1"}, 12),
        ({"into": "1.4"}, 6),
        ({"layer": 0}, 24),
        ({"token": "0", "layer": 0}, 4),
        ({"sign": "suppresses"}, 6),
        ({"min_effect": 3.0, "sign": "promotes"}, 12),
        ({"category": "right"}, 12),
    ],
)
def test_filters_of_edges(atlas: Atlas, options: dict[str, Any], count: int) -> None:
    assert len(atlas.edges(**options)) == count


def test_filters_of_prompts(atlas: Atlas) -> None:
    assert len(atlas.prompts(text="b 3")) == 1
    assert len(atlas.prompts(category="left", limit=4)) == 4
    assert (atlas.count(), atlas.count("left"), atlas.count({"kind": "right"})) == (12, 6, 6)
    assert "12 prompts of hand-made" in repr(atlas)


def test_the_order_is_that_of_the_contents(tmp_path: Path) -> None:
    one = Atlas(atlas_by_hand(tmp_path / "one", GRAPHS, parts=1))
    many = Atlas(atlas_by_hand(tmp_path / "many", dict(reversed(GRAPHS.items())), parts=5))
    loose = Atlas(atlas_by_hand(tmp_path / "loose", GRAPHS, parts=3, compact=False))
    for table in ("prompts", "nodes", "edges"):
        found = [each.sql(f"SELECT * FROM {table} ORDER BY ALL") for each in (one, many, loose)]
        assert found[0].equals(found[1]) and found[0].equals(found[2])


def test_separation_and_its_null(atlas: Atlas) -> None:
    found = atlas.separation()
    assert (found.share, found.prompts, found.left_out) == (1.0, 12, 0)
    assert found.by_category == {"left": 1.0, "right": 1.0}
    assert found.by_chance == pytest.approx(5 / 11, abs=0.06)  # of the 11 others 5 are alike
    assert found.p == pytest.approx(1 / 201, rel=2)


def test_a_map_tells_the_kinds_apart(atlas: Atlas) -> None:
    found = atlas.map()
    assert len(found) == 12 and {"x", "y", "kind", "prompt"} <= set(found)
    left, right = (found[found["kind"] == kind]["x"].to_numpy() for kind in ("left", "right"))
    assert np.ptp(left) < 1e-6 and np.ptp(right) < 1e-6  # each kind's graphs are one graph
    assert abs(left[0] - right[0]) > 0.5


@pytest.mark.parametrize(("prompts", "edges"), [(8, 30), (30, 8)])
def test_the_map_is_that_of_principal_components(tmp_path: Path, prompts: int, edges: int) -> None:
    rng = np.random.default_rng(0)
    weights = rng.uniform(0.5, 2, (prompts, edges)) * (rng.random((prompts, edges)) < 0.6)
    graphs = {
        f"{number}": (None, [(f"0.{at}@0", f"1.{at}@0", -row[at]) for at in row.nonzero()[0]])
        for number, row in enumerate(weights)
    }
    found = Atlas(atlas_by_hand(tmp_path / "made", graphs)).map().set_index("prompt")
    points = weights / np.linalg.norm(weights, axis=1, keepdims=True)
    left, sizes, _ = np.linalg.svd(points - points.mean(axis=0))
    own = found.loc[[f"{number}" for number in range(prompts)], ["x", "y"]].to_numpy()
    assert np.abs(own) == pytest.approx(np.abs(left[:, :2] * sizes[:2]), abs=1e-8)


def test_of_equally_near_prompts_the_share_counts(tmp_path: Path) -> None:
    """All graphs are one: of each prompt's others those of its own category are so many."""
    graphs = {f"{n} x": ("abbb"[n % 4], [SHARED]) for n in range(8)}
    graphs |= {"none x": ("a", []), "no kind x": (None, [SHARED])}  # type: ignore[dict-item]
    found = Atlas(atlas_by_hand(tmp_path / "made", graphs)).separation()
    assert (found.prompts, found.left_out) == (8, 2)
    assert found.by_category == pytest.approx({"a": 1 / 7, "b": 5 / 7})
    assert found.share == pytest.approx((2 * 1 / 7 + 6 * 5 / 7) / 8)
    assert found.by_chance == pytest.approx(found.share), "however they are dealt out"
    assert found.p == 1.0


def test_a_map_of_graphs_that_are_alike_is_refused(tmp_path: Path) -> None:
    same: dict[str, Any] = {f"{n} x y": ("a", [SHARED, OWN, OTHER]) for n in range(5)}
    with pytest.raises(SaeGraphsError, match="the graphs of all 5 prompts are alike"):
        Atlas(atlas_by_hand(tmp_path / "made", same)).map()
    with pytest.raises(SaeGraphsError, match="a map needs at least 3 of each"):
        Atlas(atlas_by_hand(tmp_path / "few", dict(list(same.items())[:2]))).map()


def test_means_are_over_prompts_not_over_tokens(tmp_path: Path) -> None:
    graphs: dict[str, Any] = {
        "one x y z": ("a", [("0.1@0", "1.2@1", -1.0), ("0.1@0", "1.2@2", -3.0)]),
        "two x y z": ("a", [("0.1@0", "1.2@1", -8.0)]),
    }
    made = Atlas(atlas_by_hand(tmp_path / "made", graphs))
    (row,) = made.feature("1.2").sources.to_dict("records")
    assert (row["prompts"], row["mean_flow"], row["mean_effect"]) == (2, -6.0, -12.0)
    (row,) = made.feature("0.1").targets.to_dict("records")
    assert (row["feature"], row["prompts"], row["mean_flow"]) == ("1.2", 2, -6.0)
    effects = {"one x y z": {1: -1.0, 2: -3.0}, "two x y z": {1: -8.0}}
    use = Atlas(atlas_by_hand(tmp_path / "more", graphs, effects=effects)).feature("1.2")
    assert use.answers[["prompts", "mean_effect"]].values.tolist() == [[2, -5.0]]  # of -2 and -8
    assert dict(zip(use.tokens["token"], use.tokens["mean_effect"], strict=True)) == {
        "x": -4.5,
        "y": -3.0,
    }


WRITING = "WITH x AS (COPY prompts TO '{file}' (FORMAT csv, USE_TMP_FILE false)) SELECT * FROM x"


def test_only_what_reads_is_answered(atlas: Atlas, tmp_path: Path) -> None:
    assert atlas.sql("SELECT count(*) AS n FROM edges")["n"].tolist() == [30]
    assert atlas.sql("FROM prompts WHERE kind = ?", ["left"]).shape[0] == 6
    folder = Path(atlas._database.folder)
    held = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    part = next(file for file in held if file.name == "edges.parquet")
    target = folder / "stolen.csv"
    none = "is not one SELECT"
    for query, words in {
        "DROP VIEW edges": none,
        "SELECT 1; SELECT 2": none,
        "": none,
        f"COPY edges TO '{target}'": none,
        f"EXPLAIN ANALYZE COPY edges TO '{target}'": none,
        "ATTACH 'other.db'": none,
        "SET threads = 1": none,
        # A SELECT can write: into what is there, what is not, and where there was an overflow.
        WRITING.format(file=folder / "atlas.json"): none,
        WRITING.format(file=part): none,
        WRITING.format(file=target): none,
        WRITING.format(file=Path(".tmp/stolen.csv").resolve()): none,
        f"{WRITING.format(file=part)} UNION ALL BY NAME SELECT 'a' AS prompt": none,
        f"WITH y AS MATERIALIZED ({WRITING.format(file=part)}) SELECT 1": none,
        "WITH x AS (INSERT INTO prompts SELECT * FROM prompts RETURNING 1) SELECT * FROM x": none,
        "WITH x AS (DELETE FROM prompts RETURNING 1) SELECT * FROM x": none,
        f"SELECT * FROM query($${WRITING.format(file=part)}$$)": none,
        "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))": none,
        "SELECT * FROM read_csv('/etc/hostname')": "cannot be answered",
        f"SELECT * FROM read_csv('{folder / 'atlas.json'}')": "cannot be answered",
        f"SELECT * FROM read_text('{folder}/../*')": "cannot be answered",
        "SELECT nothing FROM edges": "cannot be answered",
        "SELEC 1": "cannot be answered",
    }.items():
        with pytest.raises(SaeGraphsError, match=words) as told:
            atlas.sql(query)
        assert "\n" not in str(told.value)
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == held
    assert not Path(".tmp/stolen.csv").exists()


@pytest.mark.parametrize(
    "query",
    [
        "WITH RECURSIVE x(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM x WHERE n < 3) FROM x",
        "SELECT kind FROM prompts UNION SELECT target FROM prompts",
        "DESCRIBE edges",
        "SUMMARIZE nodes",
        "VALUES (1), (2)",
        "SELECT 'COPY_QUERY_NODE' AS type WHERE 'query' <> 'x'",
    ],
)
def test_what_reads_is_answered(atlas: Atlas, query: str) -> None:
    assert len(atlas.sql(query)) > 0


def test_what_would_write_is_the_databases_to_refuse_as_well(atlas: Atlas) -> None:
    """Behind the look at a query stand the settings: no folder may be written into."""
    database = atlas._database
    target = database.folder / "stolen.csv"
    with pytest.raises(SaeGraphsError, match="Permission"):
        database.table(WRITING.format(file=target))
    assert not target.exists()
    held = database.rows("SELECT value FROM duckdb_settings() WHERE name = 'allowed_directories'")
    assert held == [("[]",)]


def test_an_open_atlas_goes_on_after_another_build(tmp_path: Path) -> None:
    made = atlas_by_hand(tmp_path / "made", GRAPHS)
    atlas = Atlas(made)
    assert len(atlas.prompts()) == 12
    atlas_by_hand(made, {f"c {n} x": ("left", [SHARED]) for n in range(4)})
    assert len(atlas.prompts()) == 16, "the part that was open is gone"
    assert len(atlas.sql("FROM prompts")) == 16


@pytest.mark.parametrize(
    "name", first(2, ["a[b]*{c,d}?", "kind=it's", "a{b,c}", "a?b", "a*b", "a[b]"])
)
def test_a_folders_path_changes_nothing(tmp_path: Path, name: str) -> None:
    """Letters of patterns, and names that other programs read columns from."""
    atlas_by_hand(tmp_path / "ab" / "made", {"other x": ("right", [SHARED])})
    made = Atlas(atlas_by_hand(tmp_path / name / "made", GRAPHS, parts=2))
    assert sorted(made.prompts()["kind"]) == ["left"] * 6 + ["right"] * 6
    assert len(made.recurring_edges()) == 3


def test_nodes_and_edges_call_features_alike(atlas: Atlas, tmp_path: Path) -> None:
    graphs: dict[str, Any] = {"one x": ("a", [("token@0", "0.1@1", -1.0), ("0.1@1", "answer", -1)])}
    made = Atlas(atlas_by_hand(tmp_path / "made", graphs))
    assert set(made.sql("SELECT feature FROM nodes")["feature"]) == {"token", "0.1", "answer"}
    for end in ("source", "target"):
        names = f"SELECT {end} FROM edges WHERE {end} NOT IN (SELECT feature FROM nodes)"
        assert not len(made.sql(names)) and not len(atlas.sql(names))


def test_mistakes_are_answered_in_a_line(atlas: Atlas, tmp_path: Path) -> None:
    options: Any = {"sign": "helps"}
    for tried, words in {
        (lambda: atlas.features(layer=9)): "no SAE layer 9; the atlas has 0, 1, 2",
        (lambda: atlas.features("9.1")): "no SAE layer '9'",
        (lambda: atlas.features("nine")): "not a feature",
        (lambda: atlas.features(category="up")): "no prompt has kind 'up'; there are left, right",
        (lambda: atlas.features(category={"sort": "up"})): "no category 'sort'; it has kind",
        (lambda: atlas.features(**options)): "expected supports or opposes",
        (lambda: atlas.similar("nobody")): "no prompt 'nobody'",
        (lambda: atlas.differences("left", "left")): "give two different ones",
        (lambda: atlas.recurring_edges(least=0)): "least is 0",
        (lambda: atlas.recurring_edges(by="sort")): "no category 'sort'",
        (lambda: Atlas(tmp_path)): "is no atlas",
        (lambda: atlas.features(limit=-1)): "limit is -1; expected a whole number",
        (lambda: atlas.prompts(text=5)): "text is 5; expected text",  # type: ignore[arg-type]
        (lambda: atlas.prompts(target=5)): "target is 5; expected text",  # type: ignore[arg-type]
        (lambda: atlas.features(token=3)): "token is 3; expected text",  # type: ignore[arg-type]
        (lambda: atlas.features(min_effect="a")): "min_effect is 'a'",  # type: ignore[arg-type]
        (lambda: atlas.prompts(category=["left"])): r"category is \['left'\]; expected a value",  # type: ignore[arg-type]
        (lambda: atlas.features(lyer=3)): "did you mean layer",  # type: ignore[call-arg]
        (lambda: atlas.similar("nobody", limit=0)): "limit is 0",
        (lambda: atlas.sql(5)): "the query is 5; expected a SELECT",  # type: ignore[arg-type]
        (lambda: atlas.sql("FROM prompts WHERE kind = ?")): "cannot be answered",
        (lambda: atlas.sql("SELECT 1", [2])): "cannot be answered",
    }.items():
        with pytest.raises(SaeGraphsError, match=words) as told:
            tried()
        assert "\n" not in str(told.value)
