"""How listeners ranked generations."""
