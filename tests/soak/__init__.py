"""The random soak: a stream of jobs through a schedule of faults, both drawn from a seed, and a check of what is left.

python -m tests.soak --seed 1 --jobs 500 --faults 100
"""
