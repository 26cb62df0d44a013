"""Where Triton keeps compiled kernels."""

from __future__ import annotations

from pathlib import Path

import pytest

triton = pytest.importorskip("triton", reason="kernels need Triton")

from generation_service.models.musicgen.kernels.compile_cache import use_compile_cache  # noqa: E402


def test_triton_uses_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", "/elsewhere")  # So that it is restored in any case.
    monkeypatch.delenv("TRITON_CACHE_DIR")
    use_compile_cache(tmp_path)
    assert triton.knobs.cache.dir == str(tmp_path / "triton")


def test_a_folder_that_is_set_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", "/elsewhere")
    use_compile_cache(tmp_path)
    assert triton.knobs.cache.dir == "/elsewhere"
