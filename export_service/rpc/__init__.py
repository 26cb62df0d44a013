"""The gRPC face of export: messages in, domain calls, messages out."""
