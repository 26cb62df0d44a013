"""Audio on its way to listeners: live from the spool of an export in progress, or from files of the library."""
