"""What repeats a take exactly: a shell line, a line of `buf curl` and a Python program."""
