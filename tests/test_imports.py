"""Who imports whom: down only, in no circle, and nothing slow before it is needed.

Imports under `TYPE_CHECKING` and those inside functions count as well.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

from tests.support.structure import (
    MAY_IMPORT,
    ROOT,
    circles,
    modules_of,
    private_imports,
    statements,
    upward,
)

PACKAGE = ROOT / "sae_graphs"

HEAVY = {"torch", "transformers", "sae_lens"}

# What begins at once, and what each does without beside torch; in this order, before all others.
# What one has loaded no later one loads again: each does without all that later ones do.
LIGHT = {
    "graphs": ("sae_graphs.graph",),
    "commands": ("sae_graphs.cli",),
    "the server": ("sae_graphs.gallery.server",),
    "reports": ("sae_graphs.validation.report.files", "sae_graphs.cli.verdict_table"),
}
SLOW = {
    "graphs": {"pandas", "pygraphviz", "matplotlib", "scipy", "jinja2"},
    "commands": {"pandas", "matplotlib", "scipy", "jinja2"},
    "the server": {"pandas", "matplotlib", "scipy"},
    "reports": {"pandas", "matplotlib.pyplot"},
}

# What opens without torch: saved graphs, their pictures, their reports, and the gallery of them.
TORCH_FREE = {
    "sae_graphs": ("sae_graphs",),
    "graph": ("sae_graphs.graph",),
    "every file of graph": ("sae_graphs.graph.*",),
    "every file of render": ("sae_graphs.render.*",),
    "every file of gallery": ("sae_graphs.gallery.*",),
    "the floor": (
        *("sae_graphs.checkpoint", "sae_graphs.errors", "sae_graphs.files", "sae_graphs.keywords"),
        *("sae_graphs.late", "sae_graphs.runs", "sae_graphs.schema", "sae_graphs.significance"),
        *("sae_graphs.text", "sae_graphs.words"),
    ),
    "records of validation": (
        *("sae_graphs.validation.evidence", "sae_graphs.validation.evidence_json"),
        *("sae_graphs.validation.judging", "sae_graphs.validation.verdicts"),
        *("sae_graphs.validation.settings", "sae_graphs.validation.report.*"),
    ),
    "records of tracing": (
        *("sae_graphs.tracing.cells", "sae_graphs.tracing.partial", "sae_graphs.tracing.records"),
        *("sae_graphs.tracing.record_json", "sae_graphs.tracing.settings"),
    ),
    "records of Granger tests": (
        *("sae_graphs.editing", "sae_graphs.editing.granger", "sae_graphs.editing.granger.pairs"),
        *("sae_graphs.editing.granger.report", "sae_graphs.editing.granger.texts"),
    ),
    "records of editing": (
        *("sae_graphs.editing.cases_file", "sae_graphs.editing.inside_report"),
        *("sae_graphs.editing.many",),
        *("sae_graphs.editing.many_report", "sae_graphs.editing.places"),
        *("sae_graphs.editing.places_report", "sae_graphs.editing.record"),
        *("sae_graphs.editing.report", "sae_graphs.editing.scores", "sae_graphs.editing.settings"),
    ),
    "an atlas that is asked": (
        *("sae_graphs.atlas.atlas", "sae_graphs.atlas.prompts", "sae_graphs.atlas.recurring"),
        *("sae_graphs.atlas.space", "sae_graphs.atlas.store", "sae_graphs.atlas.pictures"),
        "sae_graphs.atlas.pages",
    ),
    "saved effects": (
        *("sae_graphs.effects.agreement", "sae_graphs.effects.settings"),
        "sae_graphs.effects.replot",
    ),
    "Neuronpedia": ("sae_graphs.features.neuronpedia.*",),
    "the command line": ("sae_graphs.cli.*",),
}


# -- the whole package -----------------------------------------------------------------------------


def test_the_table_names_every_package() -> None:
    packages = {file.parent.name for file in PACKAGE.glob("*/__init__.py")}
    assert packages == MAY_IMPORT.keys() - {"floor"}


def test_the_table_goes_down() -> None:
    seen: set[str] = set()
    for package, below in MAY_IMPORT.items():
        assert below <= seen, f"{package} imports what is named after it"
        seen.add(package)


def test_imports_go_down() -> None:
    assert upward(PACKAGE) == []


def test_no_file_is_in_a_circle() -> None:
    assert circles(PACKAGE) == []


def test_private_names_stay_at_home() -> None:
    assert private_imports(PACKAGE) == []


def test_one_file_imports_by_a_string() -> None:
    found = {
        name
        for name, file in modules_of(PACKAGE).items()
        if imports_by_a_string(file.read_text(encoding="utf-8"))
    }
    assert found == {"sae_graphs.late"}


def imports_by_a_string(code: str) -> bool:
    """Whether it calls `__import__`, or has `importlib` for more than a version."""
    if not any(word in code for word in ("importlib", "__import__", "exec", "eval")):
        return False
    for node in ast.walk(ast.parse(code)):
        names = [it.name for it in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if any(name in ("importlib", "importlib.util") for name in names):
            return True
        if isinstance(node, ast.Name) and node.id in ("__import__", "exec", "eval"):
            return True
    return False


# -- what is imported at once ----------------------------------------------------------------------


def test_what_is_slow_is_not_loaded() -> None:
    """Torch by none of these, jinja2, pandas and the like only where `SLOW` does not name them."""
    groups = {
        group: [it for name in names for it in (below(name) if name.endswith(".*") else [name])]
        for group, names in {**LIGHT, **TORCH_FREE}.items()
    }
    assert loaded_by(groups, {group: {*HEAVY, *SLOW.get(group, ())} for group in groups}) == {}


def test_no_group_hides_what_a_later_one_loads() -> None:
    wholes = [{name.split(".")[0] for name in SLOW.get(group, ())} for group in LIGHT]
    assert all(later <= earlier for earlier, later in pairwise(wholes))


def below(name: str) -> list[str]:
    """Every module of a package, such as `sae_graphs.graph.*`, but the one that runs it."""
    whole = name.removesuffix(".*")
    found = [it for it in modules_of(PACKAGE) if it == whole or it.startswith(f"{whole}.")]
    return [it for it in found if not it.endswith(".__main__")]


def loaded_by(groups: dict[str, list[str]], slow: dict[str, set[str]]) -> dict[str, list[str]]:
    """Which of its slow modules each group is the first to load, all in one process, in turn."""
    code = (
        "import importlib, json, sys\n"
        f"found, slow = {{}}, {slow!r}\n"
        f"for group, modules in {groups!r}.items():\n"
        "    before = set(sys.modules)\n"
        "    for module in modules:\n"
        "        importlib.import_module(module)\n"
        "    if new := slow[group] & sys.modules.keys() - before:\n"
        "        found[group] = sorted(new)\n"
        "print(json.dumps(found))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded: dict[str, list[str]] = json.loads(done.stdout)
    return loaded


# -- what tells of them can fail -------------------------------------------------------------------


def fake(folder: Path, **files: str) -> Path:
    """A package of a few lines: `graph__paths` is `graph/paths.py`."""
    package = folder / "fake"
    for name, text in files.items():
        file = package / f"{name.replace('__', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        (file.parent / "__init__.py").touch()
    return package


def test_a_circle_is_found(tmp_path: Path) -> None:
    package = fake(
        tmp_path,
        graph__graph="from fake.errors import Wrong\n",
        graph__paths="if TYPE_CHECKING:\n    from fake.graph.names import name\n",
        graph__names="def name():\n    import fake.graph.paths\n",
    )
    assert circles(package) == [["fake.graph.names", "fake.graph.paths"]]
    assert upward(package) == []


def test_an_upward_import_is_found(tmp_path: Path) -> None:
    package = fake(
        tmp_path,
        errors="",
        words="from fake.graph import graph\n",
        graph__graph="def svg():\n    from fake.render.pictures import svg\n",
        render__pictures="from fake.graph.graph import draw\nfrom fake import words\n",
        interventions="from fake.graph import graph\n",
        graph__paths="import fake.interventions\n",
        unheard__of="from fake.errors import Wrong\nfrom fake.graph import graph\n",
    )
    assert upward(package) == [
        "fake.graph.graph imports fake.render.pictures",
        "fake.graph.paths imports fake.interventions",
        "fake.unheard.of imports fake.graph.graph",
        "fake.words imports fake.graph.graph",
    ]


def test_an_import_is_found_wherever_a_statement_can_stand(tmp_path: Path) -> None:
    file = tmp_path / "any.py"
    file.write_text(
        "try:\n    import a\nexcept ImportError:\n    import b\nelse:\n    import c\n"
        "finally:\n    import d\nfor i in ():\n    import e\nelse:\n    import f\n"
        "class C:\n    async def g(self):\n        async with self:\n            from g import h\n"
        "match 1:\n    case 1:\n        while 1:\n            import i\n"
        "if 1:\n    pass\nelif 2:\n    j = lambda: 3\nelse:\n    import k\n"
    )
    every = [it for it in ast.walk(ast.parse(file.read_text())) if hasattr(it, "names")]
    assert len(every) == 9
    assert sorted(map(ast.dump, statements(file))) == sorted(map(ast.dump, every))


def test_private_names_from_elsewhere_are_found(tmp_path: Path) -> None:
    package = fake(
        tmp_path,
        schema="from fake._version import __version__\n",
        runs="def f():\n    from fake.schema import _plain, rebuilt\n",
    )
    assert private_imports(package) == ["fake.runs imports _plain"]


def test_slow_modules_and_imports_by_a_string_are_found() -> None:
    groups = {"none": ["sae_graphs.errors"], "one": ["wave"], "again": ["sae_graphs", "wave"]}
    slow = {"none": {"wave"}, "one": {"torch", "wave"}, "again": {"wave"}}
    assert loaded_by(groups, slow) == {"one": ["wave"]}
    assert imports_by_a_string("import importlib\n")
    assert imports_by_a_string("def f():\n    return __import__('torch')\n")
    assert not imports_by_a_string("from importlib.metadata import version\n")
