"""Default arguments of the clients. Imports nothing, so that `weir --help` is instant."""

TARGET = "127.0.0.1:8001"
TIMEOUT_S = 30.0
# For calls that load a model: a large one is read, hashed, warmed up and golden-tested first.
LOADING_S = 300.0

# gRPC's own limit is 4 MiB, less than a batch of photographs.
MAX_MESSAGE_BYTES = 64 << 20
