"""SAEs for SmolLM2-135M-Instruct: texts, plan, evaluation, what ships, and what graphs find."""
