"""The public gRPC service, in front of the other three."""
