"""gRPC under the servicer: calls in, answers out. It knows no model and parses no message."""
