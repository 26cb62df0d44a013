"""The public gRPC service, which calls the storage, export and generation services."""
