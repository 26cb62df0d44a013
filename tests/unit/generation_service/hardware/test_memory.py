"""Memory of the host and of GPUs that share it, and the batch sizes that follow from it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from generation_service.hardware.memory import DeviceMemory, cuda_memory, default_batch_size, host_memory

MEMINFO = (
    "MemTotal:       125000000 kB\nMemFree:         1000000 kB\nMemAvailable:   110000000 kB\nHugePages_Total:  0\n"
)
HOST = DeviceMemory(110_000_000 * 1024, 125_000_000 * 1024)


@pytest.fixture
def meminfo(tmp_path: Path) -> Path:
    file = tmp_path / "meminfo"
    file.write_text(MEMINFO)
    return file


def test_free_memory_of_the_host_includes_the_page_cache(meminfo) -> None:
    assert host_memory(meminfo) == HOST
    assert HOST.used_bytes == 15_000_000 * 1024


def test_without_meminfo_the_system_is_asked(tmp_path) -> None:
    memory = host_memory(tmp_path / "absent")
    assert memory is not None
    assert 0 < memory.free_bytes < memory.total_bytes


def test_system_that_says_nothing_has_unknown_memory(tmp_path, monkeypatch) -> None:
    def refuse(name: str) -> int:
        raise ValueError(f"unrecognized configuration name {name}")

    monkeypatch.setattr(os, "sysconf", refuse)
    assert host_memory(tmp_path / "absent") is None
    assert cuda_memory(1, 2, is_integrated=True, meminfo=tmp_path / "absent") == DeviceMemory(1, 2)


def test_integrated_gpu_has_the_memory_of_the_host(meminfo) -> None:
    after_reading_a_checkpoint = (1_000_000 * 1024, 125_000_000 * 1024)
    assert cuda_memory(*after_reading_a_checkpoint, is_integrated=True, meminfo=meminfo) == HOST
    assert cuda_memory(*after_reading_a_checkpoint, is_integrated=False, meminfo=meminfo) == DeviceMemory(
        *after_reading_a_checkpoint
    )


@pytest.mark.parametrize(
    ("total_bytes", "size"),
    [(None, 8), (8e9, 16), (24e9, 32), (42.9e9, 64), (85.5e9, 128), (149e9, 128), (0, 16)],
    ids=["CPU", "8 GB", "24 GB", "A100 40 GB", "H100 80 GB", "H200", "unknown"],
)
def test_batch_size_follows_from_the_memory(total_bytes, size) -> None:
    assert default_batch_size(total_bytes) == size
