"""Ages and sizes as they are typed."""

from __future__ import annotations

import pytest

from gateway.cli.display.units import age_of, bytes_of
from gateway.cli.session.command_errors import CommandError


def test_ages_and_sizes_as_typed() -> None:
    assert age_of("2w", "--older-than").days == 14
    assert bytes_of("1.5GB", "--keep") == 1_500_000_000
    for text in ("", "30", "d", "-1d", "1y", "999999d"):
        with pytest.raises(CommandError, match="--older-than"):
            age_of(text, "--older-than")
    for text in ("", "5", "GB", "-1GB", "1,5GB", "1KB"):
        with pytest.raises(CommandError, match="--keep"):
            bytes_of(text, "--keep")
