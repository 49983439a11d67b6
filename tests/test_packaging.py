"""What an installed package holds: everything that a run needs, nothing that training left."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

from sae_graphs.files import bundled_folder
from tests.support.structure import statements

ROOT = Path(__file__).resolve().parent.parent


def shipped() -> dict[str, str]:
    """Places in the clone, and where the wheel puts them."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    places: dict[str, str] = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    return places


def test_the_bundled_model_goes_into_the_wheel() -> None:
    places = shipped()
    for part in ("model", "saes"):
        assert places[f"autoencoders/demo/{part}"] == f"sae_graphs/autoencoders/demo/{part}"
    assert all((ROOT / place).exists() for place in places)


def test_the_progress_of_a_training_does_not() -> None:
    for place in shipped():
        found = [ROOT / place] if (ROOT / place).is_file() else (ROOT / place).rglob("*")
        assert not [path for path in found if path.relative_to(ROOT).parts[-1].startswith(".")]
    assert "autoencoders/demo" not in shipped()


def test_the_bundled_model_is_found() -> None:
    folder = bundled_folder()
    assert (folder / "model" / "model.safetensors").is_file()
    assert len(list((folder / "saes").glob("*/sae_weights.safetensors"))) == 7
    for name in ("contexts", "reference"):
        assert len(list((folder / "saes").glob(f"*/{name}.safetensors"))) == 7


def test_what_is_imported_is_declared() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = settings["project"]
    needed = names_in(project["dependencies"])
    found = imported_by(ROOT / "sae_graphs")
    extras = project["optional-dependencies"]
    extra = names_in([*extras["real"], *extras["ray"]])
    assert {"torch", "huggingface_hub", "jinja2"} <= found <= needed | extra
    assert not extra & needed
    developing = names_in(extras["dev"])
    assert imported_by(ROOT / "training") <= needed | developing


def names_in(wanted: list[str]) -> set[str]:
    """What the libraries are called when they are imported."""
    return {re.split(r"[<>=\[]", each)[0].replace("-", "_") for each in wanted}


def imported_by(package: Path) -> set[str]:
    """The libraries that its files import, wherever the statement stands."""
    ours = {"sae_graphs", "training", "tests", "benchmarks"}
    found: set[str] = set()
    for file in package.rglob("*.py"):
        for node in statements(file):
            names = [it.name for it in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found |= {name.partition(".")[0] for name in names}
    return found - sys.stdlib_module_names - ours
