"""Invalid and hostile input at random, from a seed: requests, files, command lines."""
