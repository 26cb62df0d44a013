"""The files of the library: outputs, clips and renders, and what is done with them once they exist."""
