"""The library in object storage: the bucket is the truth, and the local disk has what is being read or written."""
