"""Who calls, and what they may do: tokens, scopes, certificates."""
