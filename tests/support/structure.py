"""The structure of the package, read from its imports: `python -m tests.support.structure`.

Imports under `TYPE_CHECKING` and those inside functions count as well.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import networkx as nx

ROOT = Path(__file__).resolve().parents[2]

FLOOR = "floor"
# What each package may import, beside the floor and itself. The floor's files import the floor.
MAY_IMPORT: dict[str, set[str]] = {
    FLOOR: set(),
    "model": set(),
    "graph": set(),
    "pretrained": {"model"},
    "training": {"model", "pretrained"},
    "features": {"model", "graph", "pretrained"},
    "render": {"graph"},
    "effects": {"model", "graph", "features"},
    "validation": {"model", "graph", "features", "effects", "render"},
    "tracing": {"model", "graph", "effects", "render"},
    "editing": {"model", "graph", "pretrained", "features", "effects", "render", "tracing"},
    "atlas": {
        *("graph", "pretrained", "features", "model", "effects", "validation", "tracing", "render"),
    },
    "gallery": {"graph", "render", "validation", "tracing", "editing", "atlas"},
    "cli": {
        "model",
        "graph",
        "pretrained",
        "training",
        "features",
        "render",
        "effects",
        "validation",
        "tracing",
        "editing",
        "atlas",
        "gallery",
    },
}

# Public names of the whole package, above all of it: nothing in it imports them.
DOORS = ("", "interventions", "demo")


def modules_of(package: Path) -> dict[str, Path]:
    """Every module below a package's folder, by its dotted name."""
    found = {}
    for file in sorted(package.rglob("*.py")):
        parts = file.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


@cache
def statements(file: Path) -> tuple[ast.Import | ast.ImportFrom, ...]:
    """A file's import statements, wherever they stand; read once, and nothing may change them."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return tuple(node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom))


def imported(file: Path, modules: Mapping[str, Path]) -> Iterator[str]:
    """The modules among these that a file's import statements name, wherever they stand."""
    for node in statements(file):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in modules)
        elif node.module:
            assert node.level == 0, f"{file} has a relative import"
            for name in node.names:
                whole = f"{node.module}.{name.name}"
                if whole in modules or node.module in modules:
                    yield whole if whole in modules else node.module


def private_imports(package: Path) -> list[str]:
    """The private names that a module takes from another."""
    found = []
    for name, file in modules_of(package).items():
        for node in statements(file):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(package.name):
                taken = [it.name for it in node.names if it.name.startswith("_")]
                found += [f"{name} imports {it}" for it in taken if not it.startswith("__")]
    return found


def arrows(package: Path) -> nx.DiGraph:
    """Who imports whom: an arrow from each module to every module that it names."""
    modules = modules_of(package)
    drawn = nx.DiGraph()
    drawn.add_nodes_from(modules)
    for name, file in modules.items():
        drawn.add_edges_from((name, other) for other in imported(file, modules) if other != name)
    return drawn


def circles(package: Path) -> list[list[str]]:
    """The groups of modules that import one another, largest first."""
    groups = (sorted(group) for group in nx.strongly_connected_components(arrows(package)))
    return sorted((group for group in groups if len(group) > 1), key=lambda each: -len(each))


def upward(package: Path) -> list[str]:
    """The imports that the table does not allow. `DOORS` may import all."""
    return [
        f"{name} imports {other}"
        for name, other in sorted(arrows(package).edges)
        if not _may(_below(package, name), _below(package, other), package)
    ]


def _below(package: Path, module: str) -> str:
    return module.removeprefix(package.name).removeprefix(".")


def _may(name: str, other: str, package: Path) -> bool:
    if name in DOORS or other in DOORS:
        return name in DOORS
    mine, theirs = (part_of(module, package) for module in (name, other))
    return mine == theirs or theirs in MAY_IMPORT.get(mine, set()) | {FLOOR}


def part_of(module: str, package: Path) -> str:
    """The package that a module below `package` is in; the modules at its root are the floor."""
    first = module.partition(".")[0]
    if first == "__main__":  # the door of the command line
        return "cli"
    return first if (package / first).is_dir() else FLOOR


def main(root: Path) -> None:
    """Counts: files, packages, lines, circles and upward imports."""
    package = root / "sae_graphs"
    files = list(modules_of(package).values())
    lines = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)
    flat = sum(file.parent == package for file in files)
    packages = sorted(path.name for path in package.iterdir() if (path / "__init__.py").is_file())
    print(f"{len(files)} files ({flat} at the root), {lines:,} lines of Python")
    print(f"{len(packages)} packages: {', '.join(packages)}")
    print(f"circles: {[len(group) for group in circles(package)] or 'none'}")
    print(f"imports that the table does not allow: {len(upward(package))}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT)
