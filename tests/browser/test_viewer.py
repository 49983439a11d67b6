"""A folder for circuit-tracer's viewer in a browser that asks for its files as that viewer does.

The viewer's page takes its libraries from a CDN, and so, unless a graph's `scan` begins with `./`,
a feature's examples. Here every address is answered by hand: the page asks in the viewer's order
(the list, the graph, an example of each feature), and nothing beyond its own host.
"""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from sae_graphs.graph.export.viewer import viewer_folder
from sae_graphs.graph.graph import CausalGraph
from tests.support.answer_graphs import answer_graph, hostile_answers

pytestmark = pytest.mark.slow

HOST = "http://viewer.test"
PAGE = """<!doctype html><meta charset="utf-8"><script src="https://cdn.test/d3.js"></script>
<ol></ol><script type="module">
const json = async path => (await fetch(path)).json()
const place = path => path.startsWith('./') ? path : `https://cdn.test/${path}`  // as its util.js
const {graphs} = await json('./data/graph-metadata.json')
const {metadata, nodes} = await json(`./graph_data/${graphs[0].slug}.json`)
const list = document.querySelector('ol')
for (const node of nodes) {
  const item = list.appendChild(document.createElement('li'))
  item.textContent = node.clerp
  item.dataset.kind = node.feature_type
  if (node.feature_type != 'cross layer transcoder') continue
  const found = await json(place(`${metadata.scan}/${node.feature}.json`))
  const example = found.examples_quantiles[0].examples[0]
  if (example) item.append(' ⟦' + example.tokens.join('') + '⟧')
}
document.body.dataset.done = metadata.prompt_tokens.length
</script>"""


@pytest.mark.parametrize("make", [answer_graph, hostile_answers])
def test_the_viewer_finds_every_feature_on_its_own_host(browser: Any, make: Any) -> None:
    graph: CausalGraph = make()
    files, asked, wrong = viewer_folder(graph).files, [], []

    def answer(route: Any) -> None:
        parts = urlsplit(route.request.url)
        asked.append(parts.netloc)
        if parts.path == "/":
            route.fulfill(body=PAGE, content_type="text/html")
        elif parts.netloc == "cdn.test":
            route.fulfill(body="window.d3 = {}", content_type="text/javascript")
        else:
            name = re.sub(r"^/(data|graph_data)/", "", unquote(parts.path))
            known = name in files
            route.fulfill(status=200 if known else 404, body=files.get(name, b"").decode())

    page = browser.new_page()
    try:
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.route(re.compile("^https?:"), answer)
        page.goto(f"{HOST}/")
        page.wait_for_selector("body[data-done]", state="attached", timeout=10_000)
        assert not wrong
        assert page.evaluate("document.body.dataset.done") == str(len(graph.tokens))
        features = page.locator("li[data-kind='cross layer transcoder']").all_inner_texts()
        assert len(features) == sum(node.feature.is_feature for node in graph.nodes)
        assert all("⟦" in text for text in features)
        assert page.locator("li[data-kind='logit']").count() >= 1
        assert page.locator("script, img").count() == 2  # the page's own; text stays text
        assert asked.count("cdn.test") == 1  # its library
    finally:
        page.close()


def test_a_scan_elsewhere_would_be_asked_of_the_cdn(browser: Any) -> None:
    """The page above does notice: with another `scan`, features are looked for on the CDN."""
    files, asked = dict(viewer_folder(answer_graph()).files), []
    (slug,) = [name for name in files if "/" not in name and "metadata" not in name]
    data = json.loads(files[slug])
    data["metadata"]["scan"] = "some-model"
    files[slug] = json.dumps(data).encode()

    def answer(route: Any) -> None:
        parts = urlsplit(route.request.url)
        asked.append(route.request.url)
        name = re.sub(r"^/(data|graph_data)/", "", unquote(parts.path))
        body = PAGE if parts.path == "/" else files.get(name, b"{}").decode()
        route.fulfill(body=body, content_type="text/html" if parts.path == "/" else "text/plain")

    page = browser.new_page()
    try:
        page.route(re.compile("^https?:"), answer)
        page.goto(f"{HOST}/")
        page.wait_for_timeout(500)
        assert any(address.startswith("https://cdn.test/some-model/") for address in asked)
    finally:
        page.close()
