"""What a call's metadata may weigh, and how many files the process may open."""

from __future__ import annotations

import resource

import pytest

from dgx_music.errors import ResourceExhausted
from service_runtime.rpc.load.transport_limits import (
    FIELD_OVERHEAD_BYTES,
    MAX_METADATA_BYTES,
    MAX_OPEN_FILES,
    raise_file_limit,
    require_small_metadata,
)


def test_metadata_up_to_the_limit_is_allowed() -> None:
    size = MAX_METADATA_BYTES - FIELD_OVERHEAD_BYTES - 1
    require_small_metadata([("a", "x" * size)])
    with pytest.raises(ResourceExhausted, match=f"may have {MAX_METADATA_BYTES} bytes; this has"):
        require_small_metadata([("a", b"x" * (size + 1))])
    with pytest.raises(ResourceExhausted):
        require_small_metadata([("a", "")] * (MAX_METADATA_BYTES // FIELD_OVERHEAD_BYTES))


def test_limit_of_open_files_is_raised_but_never_lowered() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
        raise_file_limit()
        raised, unchanged = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert raised == min(hard, MAX_OPEN_FILES)
        assert unchanged == hard
        raise_file_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == raised
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
