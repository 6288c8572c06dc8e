"""Inputs of a scoring run: one module a form, read in parts, from any row on."""
