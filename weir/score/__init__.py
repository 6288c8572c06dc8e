"""Offline scoring of many rows, `weir score`: from a file or folder to a Parquet file of scores."""
