"""The recipes of drums and percussion: what each hit is made of."""
