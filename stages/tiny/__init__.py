"""The embedded default: a small reasoner that overthinks, and everything needed to rebuild it from a seed."""
