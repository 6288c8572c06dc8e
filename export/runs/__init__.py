"""Run directories of training, published by kind."""
