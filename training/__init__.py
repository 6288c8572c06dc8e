"""Training: networks, data sets, recipes and the training loop; writes run directories."""
