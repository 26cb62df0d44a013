"""gRPC for servers and for the clients inside them: serving, health, interceptors, deadlines and streams."""
