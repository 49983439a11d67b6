"""What features do to the answer, the slow and obvious way: full passes with plain hooks.

Shares no code with `effects.answer`, only the hooks of `Oracle` and `JointOracle`.

Letters: `T` tokens, `F` features, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tests.support.joint_oracle import Edit, JointOracle
from tests.support.oracle import Change, Oracle

Place = tuple[int, int, int]  # layer, feature, position


def log_odds(logits: Tensor, token: int, contrast: int | None = None) -> Tensor:
    """Of logits `[..., V]`, from the probability itself; or the difference of two logits."""
    if contrast is not None:
        return logits[..., token] - logits[..., contrast]
    p = logits.double().softmax(-1)[..., token]
    return (p / (1 - p)).log()


class AnswerOracle:
    """One answer: a token read at a position; features become what `change_of` their layer says."""

    def __init__(
        self, oracle: Oracle, token: int, read: int, change: Change, contrast: int | None = None
    ) -> None:
        self.oracle, self.read = oracle, read
        self.change_of: Callable[[int], Change] = lambda layer: change
        self.token, self.contrast = token, contrast
        self.joint = JointOracle(oracle, 1)
        self.clean = float(self._score(oracle.logits))

    def effects(self, layer: int, position: int) -> Tensor:
        """`[F]`: every feature of a layer changed alone at one position."""
        change = self.change_of(layer)
        logits = self.oracle.logit_effects(layer, [position], self.read, change)  # [F, V]
        clean = self.oracle.logits[self.read]
        found = log_odds(clean + logits, self.token, self.contrast) - self.clean
        return torch.where((logits != 0).any(1), found, 0.0)

    def at_each(self, layer: int, position: int) -> Tensor:
        """`[F, T, F']`: the same on the next layer's features, at all positions."""
        return self.oracle.effects_at_each(layer, position, self.change_of(layer))

    def direct(self, place: Place) -> float:
        """One feature changed at its position, the features of all later layers held."""
        edits: dict[int, Edit] = {place[0]: self._ablated(place)}
        for layer in range(place[0] + 1, len(self.oracle.saes)):
            edits[layer] = self._held(layer)
        return self._changed(edits)

    def along(self, path: Sequence[Place]) -> float:
        """The first feature changed; then the path's own follow, and past the last none."""
        edits: dict[int, Edit] = {path[0][0]: self._ablated(path[0])}
        for layer, feature, position in path[1:]:
            chosen = torch.zeros_like(self.joint.activations[layer], dtype=torch.bool)
            chosen[:, position, feature] = True
            edits[layer] = self.joint.others_held(layer, chosen)
        for layer in range(path[-1][0] + 1, len(self.oracle.saes)):
            edits[layer] = self._held(layer)
        return self._changed(edits)

    def through(self, source: Place, target: Place) -> float:
        """The target alone set to what it becomes where the source is changed; above, all free."""
        layer, feature, position = target
        seen: list[Tensor] = []

        def look(stream: Tensor) -> Tensor:
            seen.append(self.joint.encode(layer, stream)[0, position, feature])
            return stream

        self.joint.run({source[0]: self._ablated(source), layer: look})
        chosen = torch.zeros_like(self.joint.activations[layer], dtype=torch.bool)
        chosen[:, position, feature] = True
        value = float(seen[0])
        edit = self.joint.changed(layer, chosen, lambda acts: torch.full_like(acts, value))
        return self._changed({layer: edit})

    def without(self, places: Sequence[Place]) -> float:
        """The score after all of these are changed together, each layer as it is by then."""
        return float(self._score(self.logits_without(places)))

    def logits_without(self, places: Sequence[Place]) -> Tensor:
        """The logits `[T, V]` after that."""
        edits: dict[int, Edit] = {}
        for layer in {place[0] for place in places}:
            chosen = torch.zeros_like(self.joint.activations[layer], dtype=torch.bool)
            for at, feature, position in places:
                if at == layer:
                    chosen[:, position, feature] = True
            edits[layer] = self.joint.changed(layer, chosen, self._become(layer))
        return self.joint.run(edits).logits[0]

    # -- inside ------------------------------------------------------------------------------------

    def _score(self, logits: Tensor) -> Tensor:
        return log_odds(logits[self.read], self.token, self.contrast)

    def _changed(self, edits: dict[int, Edit]) -> float:
        return float(self._score(self.joint.run(edits).logits[0])) - self.clean

    def _become(self, layer: int) -> Callable[[Tensor], Tensor]:
        def become(acts: Tensor) -> Tensor:
            change = self.change_of(layer)
            columns = [change(acts[0, :, j], j) for j in range(acts.shape[-1])]
            return torch.stack(columns, -1)[None]

        return become

    def _ablated(self, place: Place) -> Edit:
        layer, feature, position = place
        chosen = torch.zeros_like(self.joint.activations[layer], dtype=torch.bool)
        chosen[:, position, feature] = True
        return self.joint.changed(layer, chosen, self._become(layer))

    def _held(self, layer: int) -> Edit:
        clean = self.joint.activations[layer]

        def edit(stream: Tensor) -> Tensor:
            acts = self.joint.encode(layer, stream)
            sae = self.oracle.saes[layer]
            now = sae.decode(acts)
            sae.encode(stream)  # a decode belongs to the encode just before it
            return stream - (now - sae.decode(clean))

        return edit
