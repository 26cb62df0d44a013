"""Arms a failpoint in this process (`armed`), for servers that run in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from service_runtime import failpoints


@contextmanager
def armed(specification: str) -> Iterator[None]:
    """Arms a failpoint such as "export.before_mastering:raise" while the block runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(failpoints, "_armed", failpoints._arm(specification))
        yield
