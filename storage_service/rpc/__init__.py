"""The gRPC face of storage: messages in, domain calls, messages out."""
