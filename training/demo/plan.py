"""How big the bundled model is and how long it trains: every number of the recipe."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace


@dataclass(frozen=True)
class Plan:
    """The recipe. Lengths are in tokens unless the name says otherwise."""

    seed: int = 0
    vocab_size: int = 2048
    tokenizer_documents: int = 60_000
    context: int = 128
    layers: int = 6
    width: int = 128
    heads: int = 4
    model_tokens: int = 17_000_000
    batch_rows: int = 64
    matrix_rate: float = 0.03
    vector_rate: float = 8e-3
    warmup_steps: int = 150
    decay_share: float = 0.6
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    checkpoint_steps: int = 250
    sae_features: int = 1024
    sae_active: int = 16
    sae_tokens: int = 12_000_000
    sae_batch: int = 1024
    sae_rate: float = 4e-3
    sae_dead_steps: int = 1000
    refining_tokens: int = 7_500_000
    refining_rate: float = 3e-3
    refining_dead_steps: int = 100
    context_tokens: int = 600_000

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.model_tokens < self.tokens_per_step:
            raise ValueError(f"model_tokens {self.model_tokens} is less than one step")

    @property
    def tokens_per_step(self) -> int:
        """Tokens of one step of the model's training."""
        return self.batch_rows * self.context

    @property
    def steps(self) -> int:
        """Steps of the model's training."""
        return self.model_tokens // self.tokens_per_step

    @property
    def hook_names(self) -> tuple[str, ...]:
        """Where the SAEs sit: the stream before every block, and after the last."""
        before = [f"blocks.{layer}.hook_resid_pre" for layer in range(self.layers)]
        return (*before, f"blocks.{self.layers - 1}.hook_resid_post")

    @property
    def refined_hook_names(self) -> tuple[str, ...]:
        """Where a second training pays: the early layers, in which many features die at first.

        Deeper ones lose more by it: their rare features count as dead and are trained away.
        """
        return self.hook_names[1:4]

    def scaled(self, scale: float) -> Plan:
        """The same recipe with its training lengths multiplied by `scale`, for trials."""
        return replace(
            self,
            tokenizer_documents=max(2_000, int(self.tokenizer_documents * scale)),
            model_tokens=max(4 * self.tokens_per_step, int(self.model_tokens * scale)),
            sae_tokens=max(8 * self.sae_batch, int(self.sae_tokens * scale)),
            refining_tokens=max(8 * self.sae_batch, int(self.refining_tokens * scale)),
            context_tokens=max(4 * self.tokens_per_step, int(self.context_tokens * scale)),
            warmup_steps=max(1, int(self.warmup_steps * scale)),
            checkpoint_steps=max(2, int(self.checkpoint_steps * scale)),
        )

    def to_json(self) -> dict[str, object]:
        """The recipe as JSON data."""
        return asdict(self)
