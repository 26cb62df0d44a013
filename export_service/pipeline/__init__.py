"""From received samples to a finished file: exports, renders, clip imports."""
