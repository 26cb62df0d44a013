"""From received samples to files of the library: exports, renders and clip imports."""
