"""What holds for all tests."""

from __future__ import annotations

import os

# Tiny models gain nothing by a second thread, and on a busy machine lose much: threads that spin for each other.
# Set before NumPy and torch are imported, and handed down to the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
