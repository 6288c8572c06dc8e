"""The model bundle: one file format, written by export and read by the server."""
