"""Code generated from `protos/weir/`; `make proto` writes it, nobody edits it."""
