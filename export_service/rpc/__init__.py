"""The gRPC interface of the export service."""
