"""The gRPC face of the engine: messages in, engine calls, messages out."""
