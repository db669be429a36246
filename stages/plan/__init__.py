"""What a run will need before any GPU is spent on it: memory, tokens, hours. `tldr plan` shows it."""
