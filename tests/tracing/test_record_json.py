"""`trace.json`: there and back, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_graphs.errors import GraphFileError, SaeGraphsError
from sae_graphs.schema import plain
from sae_graphs.tracing.record_json import FILE_NAME, from_json, load, to_bytes, to_json
from sae_graphs.tracing.records import SCHEMA, Score, Sweep, Trace
from sae_graphs.tracing.settings import CORRUPTIONS, SWEEPS, TraceSettings
from tests.support.stacks import one_line

finite = st.floats(-1e6, 1e6, allow_nan=False)
scores = st.builds(Score, finite, st.floats(0, 1), st.floats(0, 50))
SIZES = {"noise": ["auto", "0.5", "3s", ".5"], "norm": ["1.5"], "blend": [".5"]}
odd_text = st.text(max_size=8)  # newlines, halves of characters, emoji


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    n_runs, n_layers = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    tokens = draw(st.lists(odd_text, min_size=2, max_size=5))
    names = draw(st.lists(st.sampled_from(SWEEPS), min_size=1, unique=True))
    seed = draw(st.integers(0, 2**20))
    shape = (n_runs, len(tokens), n_layers)
    random = np.random.default_rng(seed)
    corruption = draw(st.sampled_from(CORRUPTIONS))
    return Trace(
        settings=TraceSettings(
            sweeps=tuple(names),
            corruption=corruption,
            strength=draw(st.sampled_from(SIZES.get(corruption, ["auto"]))),
            window=draw(st.none() | st.integers(1, 9)),
            other=draw(odd_text) if corruption == "interchange" else None,
        ),
        model="tiny",
        prompt=draw(odd_text),
        tokens=tuple(tokens),
        subject=(0,),
        read=len(tokens) - 1,
        targets=(draw(odd_text),),
        target_ids=(7,),
        n_layers=n_layers,
        noise=draw(st.none() | st.floats(0, 9)),
        embedding_std=draw(st.floats(0, 9)),
        clean=draw(scores),
        corrupted=tuple(draw(scores) for _ in range(n_runs)),
        sweeps=tuple(
            Sweep(name, 3, *(10 ** random.uniform(-9, 3, (3, *shape)) * random.choice([-1, 1])))
            for name in names
        ),
        next_tokens=((draw(odd_text), 0.25),),
        warnings=(draw(odd_text),),
        about={"seconds": 1.5, "token_ids": [1, 2]},
    )


@pytest.mark.slow
@given(traces())
def test_there_and_back(trace: Trace) -> None:
    data = to_bytes(trace)
    again = from_json(json.loads(data))
    for one, two in zip(trace.sweeps, again.sweeps, strict=True):
        for name in ("log_odds", "probability", "kl"):
            assert np.allclose(one.of(name), two.of(name), rtol=5e-6, atol=0)
    without = [{**plain(each, {np.ndarray: lambda _: None})} for each in (trace, again)]
    assert without[0] == without[1]
    assert to_bytes(again) == data, "rounded once, it stays"


def small() -> Trace:
    cells = np.array([[[0.123456789, -2.0]]])
    score = Score(-1.0, 0.25, 0.5)
    return Trace(
        *(TraceSettings(), "m", "p", ("a",), (0,), 0, (" b",), (1,), 2, 0.5, 0.1, score, (score,)),
        sweeps=(Sweep("state", 1, cells, cells, cells),),
    )


def test_a_file_in_a_folder(tmp_path: Path) -> None:
    file = small().save(tmp_path / "outputs")
    assert file == tmp_path / "outputs" / FILE_NAME
    assert load(file).sweep("state").log_odds.tolist() == [[[0.123457, -2.0]]]
    assert load(file.parent).clean == small().clean
    assert [path.name for path in file.parent.iterdir()] == [FILE_NAME]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "sae_graphs.trace/0"}, "schema is 'sae_graphs.trace/0', expected"),
        ({"subject": [3]}, r"the subject stands at \(3,\)"),
        ({"n_layers": 3}, "has shape"),
        ({"colour": 1}, "'colour', which nobody knows"),
        ({"tokens": "a"}, "tokens is 'a'"),
        ({"clean": {"log_odds": None, "probability": 0.5, "kl": 0}}, "no score"),
        ({"sweeps": [{"name": "state", "window": 1, **dict.fromkeys("ab")}]}, "missing"),
    ],
)
def test_damage_is_answered_in_one_line(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    file = tmp_path / FILE_NAME
    file.write_text(json.dumps({**to_json(small()), **change}))
    with pytest.raises(GraphFileError, match=message) as caught:
        load(file)
    assert str(file) in one_line(caught)


@pytest.mark.parametrize("cells", [[[1.0]], [[[1.0, None]]], [[[1.0], [2.0, 3.0]]], "x", [[["a"]]]])
def test_cells_must_be_numbers(cells: Any) -> None:
    data = to_json(small())
    data["sweeps"][0]["kl"] = cells
    with pytest.raises(GraphFileError, match="cells") as caught:
        from_json(data)
    one_line(caught)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_no_number_is_no_trace(wrong: float) -> None:
    cells, fine = np.array([[[wrong, 1.0]]]), np.zeros((1, 1, 2))
    for values in ((cells, fine, fine), (fine, cells, fine), (fine, fine, cells)):
        with pytest.raises(SaeGraphsError, match="no number"):
            Sweep("state", 1, *values)
    with pytest.raises(SaeGraphsError, match="no score"):
        Score(0.0, 0.5, wrong)
    assert SCHEMA.endswith("/1")


@pytest.mark.parametrize("change", [{"read": 9}, {"read": -1}, {"corrupted": ()}, {"subject": ()}])
def test_a_trace_is_read_at_one_of_its_tokens(change: dict[str, Any]) -> None:
    with pytest.raises(SaeGraphsError):
        replace(small(), sweeps=(), **change)
