"""Model bundles: the file format that export writes and the server reads."""
