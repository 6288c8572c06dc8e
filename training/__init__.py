"""Trains the networks: models, data, recipes and the loop; writes run directories."""
