"""Whether an answer is right: the final answer in a text, its spelling, and equality with the gold."""
