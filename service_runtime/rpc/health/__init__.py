"""grpc.health.v1: what a server reports of its services, and how it asks other servers."""
