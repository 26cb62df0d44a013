"""The gRPC server of the storage service."""
