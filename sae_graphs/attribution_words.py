"""What nodes are called in viewers of attribution graphs, and texts that cannot harm those.

They put some texts into their pages as HTML, and cut the probability out of a logit's text.
"""

from __future__ import annotations

import re
import unicodedata

from sae_graphs.export_tables import context_text, peak_of, readable
from sae_graphs.records import Context, Node, OutputToken, RunRecord
from sae_graphs.text import shortened, visible

LONGEST = 160  # characters
_ANGLES = str.maketrans({"<": "‹", ">": "›"})


def safe(text: str) -> str:
    """One readable line that is no markup, wherever it is put: `<b>` becomes `‹b›`."""
    return readable(text).translate(_ANGLES)


def plain_text(text: str) -> str:
    """The text as it is, but for what files and databases refuse: control codes, half emoji."""
    return "".join(c if c in "\n\r\t" or _is_sound(c) else visible(c) for c in text)


def _is_sound(character: str) -> bool:
    return unicodedata.category(character) not in ("Cc", "Cs")


def feature_words(run: RunRecord, node: Node, label: str | None) -> str:
    """The reader's label, else Neuronpedia's explanation, else what the feature is active on."""
    words = next((text for text in (label, node.explanation) if text and text.strip()), None)
    return shortened(safe(words or _hint(run, node)), LONGEST)


def _hint(run: RunRecord, node: Node) -> str:
    for context in node.contexts:
        if any(context.activations) and (text := context_text(context)):
            return f'active on "{peak_of(context)}" in "{text.strip()}"'
    if any(node.activations):
        return f'active on "{peak_of(Context(run.tokens, node.activations))}" of the prompt'
    if node.promotes:
        return f'promotes "{node.promotes[0].token}"'
    return f"feature {node.feature}"


def logit_words(output: OutputToken, elsewhere: int | None = None) -> str:
    """`Output ")" (p=0.823)`: viewers fail where the probability is not found.

    They take the first `(p=`, and the token between the first two quotes, so neither may be part of
    the token. `elsewhere` is the position where that is not the one the probability is of.
    """
    words = f'Output "{_token(output.token)}"'
    if output.contrast is not None:
        words += f' - "{_token(output.contrast)}"'
    words += f" (p={output.probability:.3f})"
    return words if elsewhere is None else f"{words} where effects are read; here {elsewhere}"


def _token(text: str) -> str:
    words = safe(text).replace('"', "”")
    return shortened(re.sub(r"\(p=", "( p=", words), LONGEST)
