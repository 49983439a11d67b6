"""What is imported late: no sooner than it is used, and as if it had been there all the time."""

from __future__ import annotations

import gc
import inspect
import sys
from pathlib import Path

import pytest

from sae_graphs.late import Unloaded, put_off, quick_imports


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package with a module in it, not imported yet."""
    (tmp_path / "heavy_thing").mkdir()
    (tmp_path / "heavy_thing" / "__init__.py").write_text("weight = 5\n")
    (tmp_path / "heavy_thing" / "part.py").write_text("part = 6\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("heavy_thing", "heavy_thing.part"):
        monkeypatch.setitem(sys.modules, name, None)
        del sys.modules[name]
    return "heavy_thing"


def test_a_module_put_off_is_loaded_when_it_is_used(module: str) -> None:
    put_off(module)
    import heavy_thing  # type: ignore[import-not-found]

    assert isinstance(heavy_thing, Unloaded)
    inspect.getmodule(inspect.currentframe())  # asks every module for its file
    assert sys.modules[module] is heavy_thing and not hasattr(heavy_thing, "__wrapped__")
    assert heavy_thing.weight == 5 and heavy_thing.weight == 5
    assert not isinstance(sys.modules[module], Unloaded)
    put_off(module)  # it is loaded: nothing
    assert not isinstance(sys.modules[module], Unloaded)
    with pytest.raises(AttributeError):
        _ = heavy_thing.height


def test_what_is_in_it_can_be_imported(module: str) -> None:
    put_off(module)
    from heavy_thing.part import part  # type: ignore[import-not-found]

    assert part == 6


def test_what_is_not_there_stays_away() -> None:
    put_off("no_such_module_anywhere")
    assert "no_such_module_anywhere" not in sys.modules


@pytest.mark.parametrize("collects", [True, False])
def test_garbage_is_collected_afterwards_as_before(collects: bool) -> None:
    before = gc.isenabled()
    try:
        (gc.enable if collects else gc.disable)()
        with pytest.raises(KeyError), quick_imports():
            assert not gc.isenabled()
            raise KeyError
        assert gc.isenabled() == collects
    finally:
        (gc.enable if before else gc.disable)()
