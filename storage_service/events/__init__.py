"""Changes of generations, and how calls that wait for them are woken, in this process and in others."""
