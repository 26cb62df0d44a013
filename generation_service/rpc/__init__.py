"""The gRPC server of the generation service."""
