"""Problem sources, prompts, the overlap check, and results of any harness."""
