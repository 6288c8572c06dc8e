"""Versions of models: found, loaded, verified, served, reloaded, retired."""
