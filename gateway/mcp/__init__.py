"""A server of the Model Context Protocol, by which assistants generate music: a client of the gateway."""
