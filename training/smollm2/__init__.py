"""SAEs for SmolLM2-135M-Instruct: texts, plan, evaluation and what ships."""
