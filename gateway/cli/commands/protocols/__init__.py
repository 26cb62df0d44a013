"""Commands that serve the gateway to programs that do not speak gRPC."""
