"""Supervised fine-tuning on the mixture: examples, optimiser loop, control evaluation, checkpoint selection."""
