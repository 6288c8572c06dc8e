"""Sequences: one label for a whole one, or one for each of its steps."""
