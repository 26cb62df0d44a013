"""What all four servers share: settings, the gRPC server with its health service, error mapping, logs and metrics."""
