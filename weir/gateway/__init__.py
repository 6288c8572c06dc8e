"""The gateway: HTTP for clients without gRPC, as a process of its own in front of the servers."""
