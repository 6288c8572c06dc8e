"""Quality of a served model on a test set."""
