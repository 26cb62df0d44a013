"""Commands that manage who may use a server."""
