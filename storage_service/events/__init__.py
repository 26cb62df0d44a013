"""Changes, and how those who wait for them are woken: in this process and across processes."""
