"""Where compiled kernels are kept, so that only the first start on a device compiles them."""

from __future__ import annotations

import os
from pathlib import Path


def use_compile_cache(folder: Path) -> None:
    """Lets Triton keep its compiled kernels under `folder`, for the whole process, unless TRITON_CACHE_DIR is set.

    Call it before the first kernel is launched. Triton adds the version, the device and the source to a kernel's key,
    so a cache may outlive updates, and several processes may share it.
    """
    os.environ.setdefault("TRITON_CACHE_DIR", str(folder / "triton"))
