"""Problem sources, prompts, verification and the overlap check."""
