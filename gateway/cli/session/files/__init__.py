"""The files of the user: their names, their formats, and how they are written."""
