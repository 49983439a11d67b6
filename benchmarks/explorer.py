"""How large the explorer's page is, how long it takes to open, and how it answers.

    python -m benchmarks.explorer

Random graphs of GPT-2 small's layers, every box with contexts and token effects, in headless
Chromium, drawn by the processor alone. `open` is from asking for the file to a page that answers;
`hover` is the longest of 20 boxes and `filter` of 20 steps of the slider, until the screen shows
it; `pan` is the middle time between pictures while the drawing is dragged (16.7 ms is the screen's
own). Milliseconds; sizes in KiB.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import tempfile
import time
import zlib
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from sae_graphs.graph.feature_id import FeatureId
from sae_graphs.graph.graph import CausalGraph, assemble
from sae_graphs.graph.records import Context, Edge, LayerReport, Node, RunRecord, TokenEffect
from sae_graphs.render.pictures import html

LAYERS = 13
SIZES = ((40, 60), (160, 400), (500, 3000))  # boxes and arrows
WORDS = (
    "the",
    "copyright",
    "of",
    "every",
    "causal",
    "graph",
    "is",
    "read",
    "at",
    "its",
    "(",
    "C",
    ")",
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
TICK = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


def made_up(n_nodes: int, n_edges: int, *, seed: int = 0) -> CausalGraph:
    """A connected-looking graph: strong features have many arrows, most have few."""
    chance = random.Random(seed)
    tokens = ("<|endoftext|>", *(f" {chance.choice(WORDS)}" for _ in range(15)))
    layers = tuple(
        LayerReport(str(depth), f"blocks.{depth}.hook_resid_pre", 800, 60.0, 0.02)
        for depth in range(LAYERS)
    )
    run = RunRecord(
        model="gpt2-small",
        saes="made up",
        prompt="".join(tokens),
        tokens=tokens,
        read_position=len(tokens) - 1,
        settings={"top_k": n_edges // LAYERS, "per": "layer", "min_path_edges": 3, "ablate": "all"},
        total_abs_effect=4.0 * n_edges,
        kept_abs_effect=0.0,
        next_tokens=((")", 0.9), (" )", 0.05)),
        layers=layers,
    )
    ranks = [
        [
            FeatureId(str(depth), index)
            for index in chance.sample(range(24_576), -(-n_nodes // LAYERS))
        ]
        for depth in range(LAYERS)
    ]
    wide = len(ranks[0])
    ends: set[tuple[FeatureId, FeatureId]] = set()
    for depth in range(LAYERS - 1):  # every box has an arrow
        for place in range(wide):
            ends.add((ranks[depth][place], ranks[depth + 1][chance.randrange(wide)]))
            ends.add((ranks[depth][chance.randrange(wide)], ranks[depth + 1][place]))
    while len(ends) < n_edges:
        depth = chance.randrange(LAYERS - 1)
        source, target = (min(int(chance.expovariate(4 / wide)), wide - 1) for _ in range(2))
        ends.add((ranks[depth][source], ranks[depth + 1][target]))
    edges = [
        Edge(*pair, chance.choice((-1, -1, 1)) * chance.expovariate(0.2))
        for pair in sorted(ends, key=str)
    ]
    return assemble(run, [_node(name, tokens, chance) for rank in ranks for name in rank], edges)


def _node(feature: FeatureId, tokens: tuple[str, ...], chance: random.Random) -> Node:
    def values(n: int) -> tuple[float, ...]:
        return tuple(max(0.0, chance.gauss(-4, 4)) for _ in range(n))

    contexts = tuple(
        Context(tuple(f" {chance.choice(WORDS)}" for _ in range(24)), values(24)) for _ in range(8)
    )
    effects = [TokenEffect(f" {word}", chance.gauss(0, 1), 0.1) for word in WORDS[:6]]
    return Node(
        feature,
        chance.expovariate(0.1),
        activations=values(len(tokens)),
        contexts=contexts,
        promotes=tuple(effect for effect in effects if effect.effect_nats < 0),
        suppresses=tuple(effect for effect in effects if effect.effect_nats > 0),
    )


def measured(browser: Any, graph: CausalGraph, file: Path) -> dict[str, float]:
    """Sizes and times of one graph's page."""
    started = time.perf_counter()
    text = html(graph)
    found = {"write": 1000 * (time.perf_counter() - started)}
    file.write_text(text, encoding="utf-8")
    data = text.encode()
    found |= {"KiB": len(data) / 1024, "compressed": len(zlib.compress(data)) / 1024}
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    started = time.perf_counter()
    page.goto(file.as_uri())
    page.wait_for_selector("html.ready")
    page.evaluate(TICK)
    found["open"] = 1000 * (time.perf_counter() - started)
    found["hover"] = max(_over(page, number * len(graph) // 20) for number in range(20))
    found["filter"] = max(_slid(page, share / 20) for share in range(20))
    found["pan"] = _panned(page)
    page.close()
    return found


def _timed(page: Any, act: str, value: float) -> float:
    code = (
        f"async (value) => {{ const start = performance.now(); {act}; await ({TICK})();"
        " return performance.now() - start; }"
    )
    return float(page.evaluate(code, value))


def _over(page: Any, number: int) -> float:
    act = (
        'document.querySelector(`.node[data-n="${value}"]`).dispatchEvent('
        "new PointerEvent('pointerover', { bubbles: true }))"
    )
    return _timed(page, act, number)


def _slid(page: Any, share: float) -> float:
    act = (
        "const slider = document.getElementById('least');"
        "slider.value = Math.round(value * slider.max);"
        "slider.dispatchEvent(new Event('input', { bubbles: true }))"
    )
    return _timed(page, act, share)


def _panned(page: Any) -> float:
    """The middle time between two pictures while a pointer drags the drawing about."""
    page.evaluate(
        "() => { window.pictures = []; const tick = (now) => { window.pictures.push(now);"
        " requestAnimationFrame(tick); }; requestAnimationFrame(tick); }"
    )
    page.mouse.move(500, 500)
    page.mouse.down()
    for step in range(60):
        page.mouse.move(500 + 5 * (step % 30), 500 + 3 * (step % 20))
        page.wait_for_timeout(16)
    page.mouse.up()
    times = page.evaluate("window.pictures")
    return statistics.median(after - before for before, after in pairwise(times))


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--browser", default=os.environ.get("CHROMIUM"), help="Chromium's path")
    browser = parser.parse_args().browser or next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit("no browser found: install Chromium, or say where one is with --browser")
    from playwright.sync_api import sync_playwright

    names = ("write", "KiB", "compressed", "open", "hover", "filter", "pan")
    table = Table("boxes", "arrows", *names)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=FLAGS)
        for n_nodes, n_edges in SIZES:
            graph = made_up(n_nodes, n_edges)
            found = measured(chromium, graph, Path(folder) / "graph.html")
            counts = str(len(graph)), str(len(graph.edges))
            table.add_row(*counts, *(f"{found[name]:,.0f}" for name in names))
        chromium.close()
    Console().print(table)


if __name__ == "__main__":
    main()
