"""Audio on its way to listeners: recordings in progress, the spool, finished files."""
