"""Encoder-decoders as bundles of two graphs."""
