"""`generate --file`: many generations from one file, restartable where it broke off."""
