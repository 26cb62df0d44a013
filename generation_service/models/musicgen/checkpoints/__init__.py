"""Reading checkpoint files and the model's shape that they describe."""
