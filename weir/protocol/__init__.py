"""The wire: code generated from `protos/` by `make proto`, and the table of datatypes."""
