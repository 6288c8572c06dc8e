"""Sequence to sequence: recipes, batches, search, evaluation; networks: `weir.training.models.seq2seq`."""
