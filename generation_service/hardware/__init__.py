"""What this machine has: devices, their memory, temperature and power. Imports no model and no torch."""
