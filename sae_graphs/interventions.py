"""What a feature's activation becomes where it is ablated, for `causal_graph(intervention=...)`.

`scale(0.5)` multiplies it, `mean_over(model, prompts)` puts its mean in its place, and
`resample(model, prompt, n_tokens=...)` its value in another prompt; `ZERO` is the default.
"""

from sae_graphs.model.interventions import ZERO, Intervention, mean_over, resample, scale

__all__ = ["ZERO", "Intervention", "mean_over", "resample", "scale"]
