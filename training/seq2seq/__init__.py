"""Sequence to sequence: from data to searched-for answers; the networks are in `training.models.seq2seq`."""
