"""What shapes music besides its prompt: conditions, and what is made from earlier music."""
