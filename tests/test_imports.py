"""Imports point down only, and what reads saved graphs never waits for torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "sae_graphs"

# What each module may import from the package, beside `errors` and
# `records`. `TYPE_CHECKING` imports do not count.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "files": set(),
    "feature_page": set(),
    "records": {"feature_page"},
    "checks": set(),
    "graph": {"checks", "feature_page", "neuronpedia"},
    "annotations": {"files", "graph"},
    "views": {"graph"},
    "differing": {"graph", "render"},
    "paths": {"graph"},
    "graph_json": {"feature_page", "files", "graph"},
    "evidence": set(),
    "evidence_json": {"evidence", "files"},
    "notebook": {"evidence_words", "render", "report", "verdict_kinds"},
    "run_page": {"annotations", "evidence", "evidence_json", "graph", "render", "report"},
    "evidence_words": {"render"},
    "verdict_kinds": {"significance", "evidence"},
    "verdict_words": {"evidence", "evidence_words", "render", "verdict_kinds"},
    "path_words": {"evidence", "evidence_words", "verdict_kinds"},
    "verdicts": {"evidence", "evidence_words", "path_words", "verdict_kinds", "verdict_words"},
    "evidence_terminal": {"evidence", "evidence_words", "render", "verdict_kinds", "verdicts"},
    "settings": {"graph", "neuronpedia"},
    "effects": {"settings"},
    "selection": {"effects", "graph", "paths", "settings"},
    "effects_layer": {"effects", "files"},
    "neuronpedia": set(),
    "neuronpedia_answers": {"feature_page", "neuronpedia"},
    "neuronpedia_cache": {"feature_page", "files", "neuronpedia", "neuronpedia_answers"},
    "neuronpedia_client": {"feature_page", "neuronpedia", "neuronpedia_answers"},
    "annotating": {
        "feature_page",
        "graph",
        "neuronpedia",
        "neuronpedia_answers",
        "neuronpedia_cache",
        "neuronpedia_client",
    },
    "effects_file": {"effects", "effects_layer", "graph", "graph_json", "neuronpedia"},
    "resume": {"effects", "effects_layer"},
    "replotting": {"effects", "effects_file", "graph", "selection", "settings"},
    "memory": set(),
    "headers": set(),
    "stream": set(),
    "resumable": set(),
    "hub": {"headers", "memory", "resumable"},
    "layer_labels": {"stream"},
    "repositories": {"files", "hub"},
    "hub_models": {"headers", "hub", "known_saes", "releases", "repositories"},
    "model_size": {"headers", "memory"},
    "known_saes": set(),
    "releases": {"stream"},
    "sae_pattern": {"releases"},
    "sae_setup": {"headers", "memory"},
    "shelf": {"hub", "memory", "stream"},
    "hub_saes": {
        "headers",
        "hub",
        "memory",
        "releases",
        "repositories",
        "sae_pattern",
        "sae_setup",
        "shelf",
    },
    "sae_files": {
        "headers",
        "hub_saes",
        "layer_labels",
        "releases",
        "sae_pattern",
        "sae_setup",
        "shelf",
        "stream",
    },
    "saes": {"layer_labels", "memory", "sae_files", "sae_setup", "shelf", "stream"},
    "fetching": {"headers", "hub", "hub_models", "memory", "shelf"},
    "catalogue": {
        "headers",
        "hub",
        "hub_models",
        "hub_saes",
        "known_saes",
        "releases",
        "sae_pattern",
    },
    "activations": set(),
    "rows": set(),
    "recording": {"rows"},
    "clean_run": {"activations", "recording", "rows", "saes"},
    "replay": {"clean_run", "recording", "rows", "saes"},
    "self_check": {"clean_run", "replay", "rows", "saes"},
    "instrument": {"clean_run", "recording", "replay", "rows", "saes", "self_check"},
    "loading": {
        "fetching",
        "hub",
        "hub_models",
        "instrument",
        "known_saes",
        "memory",
        "model_size",
        "sae_files",
        "saes",
        "settings",
        "shelf",
    },
    "nearby": {"recording", "saes"},
    "joint": {"clean_run", "instrument", "interventions", "nearby", "rows", "saes"},
    "interventions": {"clean_run", "instrument", "saes"},
    "output_tokens": {"clean_run", "instrument", "settings"},
    "ablations": {"clean_run", "graph", "interventions", "settings"},
    "ablation": {
        "ablations",
        "clean_run",
        "effects",
        "instrument",
        "nearby",
        "replay",
        "rows",
        "saes",
    },
    "contexts": {
        "ablation",
        "ablations",
        "clean_run",
        "graph",
        "instrument",
        "rows",
        "saes",
    },
    "context_layer": {"contexts"},
    "context_rows": {"instrument"},
    "context_partial": {
        "__version__",
        "context_rows",
        "files",
        "instrument",
        "resume",
        "saving",
    },
    "context_store": {
        "context_layer",
        "context_partial",
        "context_rows",
        "contexts",
        "files",
        "instrument",
        "memory",
        "saes",
    },
    "gradients": {
        "ablation",
        "ablations",
        "clean_run",
        "effects",
        "instrument",
        "rows",
        "stream",
        "replay",
    },
    "measuring": {
        "ablation",
        "ablations",
        "clean_run",
        "effects",
        "gradients",
        "instrument",
        "interventions",
        "output_tokens",
        "resume",
        "settings",
    },
    "preflight": {"ablation", "clean_run", "graph", "instrument", "measuring"},
    "block_parts": {"clean_run", "instrument", "recording", "replay", "rows", "saes"},
    "preactivations": {"recording", "sae_setup", "saes"},
    "anatomy": {"ablation", "ablations", "block_parts", "graph", "preactivations", "rows"},
    "describing": {"ablations", "contexts", "graph", "measuring", "neuronpedia", "saes"},
    "writers": {
        "ablations",
        "anatomy",
        "block_parts",
        "clean_run",
        "graph",
        "instrument",
        "preactivations",
        "replay",
        "rows",
        "saes",
    },
    "dissection": {"anatomy", "block_parts", "describing", "graph", "measuring", "writers"},
    "saving": {
        "__version__",
        "dissection",
        "effects",
        "effects_file",
        "graph",
        "instrument",
        "measuring",
        "resume",
        "selection",
    },
    "agreement": {"effects", "graph"},
    "comparison": {"agreement", "effects", "instrument", "interventions", "measuring", "settings"},
    "comparison_table": {"agreement", "terminal"},
    "build": {
        "contexts",
        "dissection",
        "graph",
        "instrument",
        "interventions",
        "measuring",
        "output_tokens",
        "preflight",
        "resume",
        "saving",
        "selection",
        "settings",
    },
    "validation_settings": set(),
    "significance": {"evidence"},
    "scores": {"evidence", "instrument"},
    "controls": {"clean_run", "instrument", "joint"},
    "units": {"evidence", "graph", "validation_settings"},
    "subjects": {
        "ablations",
        "clean_run",
        "controls",
        "evidence",
        "graph",
        "instrument",
        "output_tokens",
        "scores",
        "settings",
        "validation_settings",
    },
    "path_ablation": {
        "controls",
        "evidence",
        "graph",
        "joint",
        "scores",
        "significance",
        "subjects",
        "validation_settings",
    },
    "mediation": {
        "controls",
        "evidence",
        "graph",
        "interventions",
        "joint",
        "path_ablation",
        "scores",
        "subjects",
    },
    "responses": {
        "controls",
        "evidence",
        "graph",
        "instrument",
        "joint",
        "output_tokens",
        "path_ablation",
        "scores",
        "settings",
        "significance",
        "subjects",
        "validation_settings",
    },
    "background": {
        "clean_run",
        "controls",
        "evidence",
        "instrument",
        "interventions",
        "joint",
        "path_ablation",
        "scores",
        "significance",
        "subjects",
    },
    "judging": {"evidence", "significance"},
    "validation_partial": {
        "__version__",
        "evidence",
        "evidence_json",
        "files",
        "graph",
        "graph_json",
        "instrument",
        "resume",
        "saving",
        "validation_settings",
    },
    "validation": {
        "background",
        "evidence",
        "graph",
        "instrument",
        "judging",
        "mediation",
        "path_ablation",
        "responses",
        "subjects",
        "units",
        "validation_partial",
        "validation_settings",
        "verdict_kinds",
    },
    "export_tables": {"annotations", "graph", "render", "views"},
    "export_xml": {"annotations", "export_tables", "graph", "render"},
    "attribution_rules": set(),
    "attribution_words": {"export_tables", "graph", "render"},
    "attribution_places": {"annotations", "attribution_words", "graph"},
    "attribution": {
        "__version__",
        "annotations",
        "attribution_places",
        "attribution_words",
        "graph",
        "neuronpedia",
    },
    "exports": {
        "annotations",
        "attribution",
        "attribution_rules",
        "export_tables",
        "export_xml",
        "files",
        "graph",
        "views",
    },
    "export_run": {"__version__", "files", "graph", "graph_json", "outputs"},
    "discovery": {"build", "graph", "instrument", "paths", "settings"},
    "corpora": set(),
}
# Imports inside a function that point up, each with its reason.
LATE: dict[str, set[str]] = {
    "graph": {
        "exports",
        "graph_json",
        "notebook",
        "paths",
        "render",
        "views",
    },  # a graph saves and draws itself on request
    "agreement": {"notebook"},  # and so do its parts
    "evidence": {"notebook"},
    "records": {"notebook"},
    "background": {"demo"},  # the texts of the bundled corpus
}
TORCH_FREE = [
    "agreement",
    "annotating",
    "annotations",
    "attribution",
    "attribution_rules",
    "comparison_table",
    "differing",
    "exports",
    "export_run",
    "export_tables",
    "export_xml",
    "graph",
    "graph_json",
    "views",
    "paths",
    "files",
    "gallery.server",
    "headers",
    "hub",
    "repositories",
    "hub_models",
    "known_saes",
    "layer_labels",
    "loading",
    "model_size",
    "releases",
    "sae_pattern",
    "memory",
    "effects",
    "effects_file",
    "effects_layer",
    "replotting",
    "resume",
    "selection",
    "settings",
    "errors",
    "evidence",
    "evidence_json",
    "evidence_terminal",
    "evidence_words",
    "neuronpedia",
    "neuronpedia_answers",
    "neuronpedia_cache",
    "neuronpedia_client",
    "notebook",
    "render",
    "report",
    "verdict_kinds",
    "verdicts",
]


def imports_of(file: Path) -> tuple[set[str], set[str]]:
    """Package modules imported at the top, and inside functions; type-checking ones left out."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    top: set[str] = set()
    late: set[str] = set()

    def visit(node: ast.AST, inside: bool) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        found = late if inside else top
        if isinstance(node, ast.Import):
            found.update(name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found.add(node.module or "")
            if node.module == "sae_graphs":
                found.update(f"sae_graphs.{name.name}" for name in node.names)
        inside = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(tree, False)
    return top, late


def own(names: set[str]) -> set[str]:
    found = {name.split(".")[1] for name in names if name.startswith("sae_graphs.")}
    return found - {"errors", "records"}  # at the bottom: anything may import them


@pytest.mark.parametrize("module", MAY_IMPORT)
def test_imports_point_down(module: str) -> None:
    top, late = imports_of(PACKAGE / f"{module}.py")
    assert own(top) <= MAY_IMPORT[module]
    assert own(late) <= MAY_IMPORT[module] | LATE.get(module, set())


@pytest.mark.parametrize("file", sorted((PACKAGE / "render").rglob("*.py")), ids=lambda f: f.stem)
def test_drawing_reads_graphs_and_paths_only(file: Path) -> None:
    top, late = imports_of(file)
    assert own(top | late) <= {"annotations", "graph", "neuronpedia", "paths", "render"}


REPORT_READS = {"annotations", "evidence", "evidence_json", "evidence_words", "graph", "render"}
REPORT_READS |= {"verdict_kinds", "verdicts"}


@pytest.mark.parametrize("file", sorted((PACKAGE / "report").glob("*.py")), ids=lambda f: f.stem)
def test_reports_read_evidence_and_draw(file: Path) -> None:
    top, late = imports_of(file)
    assert own(top | late) <= REPORT_READS | {"report"}


GALLERY_READS = {"annotations", "differing", "evidence", "evidence_json", "files", "graph"}
GALLERY_READS |= {"graph_json", "render", "report", "run_page", "verdict_kinds", "verdicts"}


@pytest.mark.parametrize("file", sorted((PACKAGE / "gallery").glob("*.py")), ids=lambda f: f.stem)
def test_the_gallery_reads_saved_runs(file: Path) -> None:
    top, late = imports_of(file)
    assert own(top | late) <= GALLERY_READS | {"gallery"}


def test_the_check_can_fail(tmp_path: Path) -> None:
    file = tmp_path / "graph.py"
    file.write_text(
        "from typing import TYPE_CHECKING\n"
        "import sae_graphs.saes\n"
        "if TYPE_CHECKING:\n    from sae_graphs.cli import app\n"
        "def late():\n    from sae_graphs.build import causal_graph\n"
    )
    top, late = imports_of(file)
    assert own(top) == {"saes"}
    assert own(late) == {"build"}


def test_reading_a_graph_needs_no_torch() -> None:
    names = ", ".join(f"sae_graphs.{name}" for name in TORCH_FREE)
    code = (
        f"import sys, sae_graphs, {names}\n"
        "sae_graphs.CausalGraph, sae_graphs.FeatureId, sae_graphs.union\n"
        "heavy = {'torch', 'transformers', 'sae_lens', 'transformer_lens', 'pandas', 'httpx'}\n"
        "sys.exit(', '.join(sorted(heavy & sys.modules.keys())) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_public_name_resolves() -> None:
    import sae_graphs

    for name in sae_graphs.__all__:
        assert getattr(sae_graphs, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = sae_graphs.nonsense
