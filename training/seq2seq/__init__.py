"""Sequence to sequence: from data to searched-for answers; the networks are in `weir.training.models.seq2seq`."""
