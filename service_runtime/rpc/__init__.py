"""Serving and calling gRPC: the server and its health, interceptors, deadlines, streams."""
