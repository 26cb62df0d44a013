"""MAGNeT, which generates the codes of a whole segment in a fixed number of parallel iterations."""
