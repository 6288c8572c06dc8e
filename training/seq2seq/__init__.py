"""Sequence to sequence: recipes, batches, search and evaluation."""
