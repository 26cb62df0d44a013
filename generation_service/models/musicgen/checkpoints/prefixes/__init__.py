"""The configuration of what models read before the codes."""
