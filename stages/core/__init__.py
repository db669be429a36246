"""The method: ratio, mixing, labels, answers. Standard library only; no files, no clock, no global randomness."""
