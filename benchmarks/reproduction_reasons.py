"""Why our numbers may differ from the published ones: what is printed under each table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.published import Figure, Published

Found = Mapping[str, Any]

FIRST_TOKEN = (
    "The variant `no BOS` also ablates at the first token, where nearly every feature is active"
)
SPANS = (
    "Which features each figure's path has was not published, so those that any of the four paths "
    "has in the figure's layers are ablated together: more than the figure ablated."
)
CODE = (
    "the source's public code applied the SAEs one block late, with mixed signs of the bias, to a "
    "stream without centred weights"
)
EXPECTED = {
    "clean": (
        "SAEs have no part in this. Expected to agree without BOS; with BOS before prompts that "
        "were published without one it must differ."
    ),
    "matched": (
        "Our own controls, which were not published: other active features, as many in each layer, "
        "that take about as much from the stream; the same scaled to the norm of the features "
        "ablated; and random directions of that norm."
    ),
    "sweep": (
        "Published: {published}. The coefficients were not published; ours run from -1 to 2 and "
        "from -10 to 20. Expected to agree in kind where both features are active."
    ),
    "weighted": (
        "Published as strongly up-weighted in one figure and down-weighted in another, without "
        "numbers, among the facts of the graph. What was measured there is not said: here it is "
        "read as what ablating a figure's features together, in the figure's prompt, does to the "
        "activation (ablated minus clean); it may as well be edges into these features in the "
        "graph's prompt, which are listed too, and judged by nothing, as which figure has which "
        "feature was not published."
    ),
    "activations": (
        "The formula is the source's, evaluated in this benchmark alone: the raw model's stream, "
        "no b_dec, no BOS. It must agree at every token if the weights are the source's. Ours are "
        "the SAEs' own activations at the right hook, with centred weights and b_dec, without BOS "
        "and with it: expected to differ, most of all at the first token."
    ),
    "promotes": (
        "Ours: the decoder's direction through the final norm and the unembedding. How the "
        "source ranked tokens was not published."
    ),
    "edges": (
        "Colours as in a picture in the source's repository, whose prompt is not known; ours in "
        "the graph's prompt, ablated minus clean."
    ),
    "graph": (
        "The source kept edges of an absolute effect of {threshold:g} or more; the strongest edges "
        "of each layer pair are kept here: expected to be alike at most. The first token is left "
        "alone in both variants, so `no BOS` ablates it everywhere but here."
    ),
    "keep_only": (
        "The target's probability in percent where all other features are ablated in the layers "
        "that the path spans; `bare` without the SAEs' errors, too. In nats, which do not run out: "
        "the target's logit less its rival's; `other sets`: the median where as many "
        "other active features of each layer are kept in the path's place. "
        "Published: {keep_only}."
    ),
    "corpus": (
        "Percentage points by which a figure's tokens move, on average and in the figure's "
        "direction, when its path is ablated in snippets of other text, beside one matched control "
        "a snippet. Published: {corpus}. Ours is of another corpus, unless --text names the "
        "source's."
    ),
}


def of_ablation(figure: Figure, published: Published) -> str:
    """Why a figure's changes may differ: without BOS only where its prompt has none."""
    first = figure == published.figures[0]
    bos = "" if figure.has_bos else ", without the BOS that SAEs want"
    words = f"Expected to differ: {CODE}{bos}. {SPANS}" if first else f"As above: {CODE}{bos}."
    if figure.has_bos:
        words += " This prompt has a BOS of its own in both variants."
    words += f" {FIRST_TOKEN}."
    if figure.path_layers != figure.control_layers:
        words += (
            f" The path is taken to span layers {figure.path_layers[0]} to "
            f"{figure.path_layers[-1]}, as the number of published features in each layer implies; "
            f"its published controls span {figure.control_layers[0]} to "
            f"{figure.control_layers[-1]}."
        )
    return words


def of_zero(cases: Sequence[Found]) -> str:
    """Why the source's controls may differ: it depends on whether they were active here."""
    zeros = [case["zero"] for case in cases if "zero" in case]
    on = sum(zero["active"] > 0 for zero in zeros)
    words = "Feature 0 of each layer of the published controls. "
    if on < len(zeros):
        words += (
            f"In {len(zeros) - on} of {len(zeros)} rows none of them is active: they cannot "
            "change anything, so published changes must come from something else that the "
            "source's code did. "
        )
    if on:
        words += (
            f"In {on} of {len(zeros)} rows some are active and may act; expected to differ all the "
            f"same: {CODE}. "
        )
    return f"{words}{FIRST_TOKEN}."
