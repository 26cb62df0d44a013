"""Causes the faults of a schedule, and mends each after its time."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from contextlib import suppress

from tests.soak.cluster import Cluster
from tests.soak.schedule import Fault

SLOW_SECONDS, SLOW_BYTES_PER_SECOND = 0.15, 200_000.0
SPARED_BYTES = 128 << 10
"""Room on a disk that is full: too little for music, and enough for a page of the database now and then."""


async def cause(cluster: Cluster, fault: Fault) -> bool:
    """Returns once the fault is over; False if it can't be caused on this machine."""
    match fault.kind:
        case "cut" | "hold" | "slow" | "lose answers":
            await _disturb(cluster, fault)
        case "disk full":
            return await _fill_disk(cluster, fault)
        case "clock":
            return await _step_clock(cluster, fault)
        case "engine":
            async with cluster.locks[fault.target]:
                await asyncio.to_thread(cluster.engines[fault.target], fault.seconds)
        case _:
            async with cluster.locks[fault.target]:
                await _afflict(cluster, fault)
    return True


async def _afflict(cluster: Cluster, fault: Fault) -> None:
    name = fault.target
    if name not in cluster.services.running or not cluster.services.running[name].is_running:
        return  # It has just died at a failpoint.
    match fault.kind:
        case "kill" | "terminate":
            await cluster.stop(name, signal.SIGKILL if fault.kind == "kill" else signal.SIGTERM)
            await asyncio.sleep(fault.seconds)
            await cluster.start(name)
        case "pause":
            cluster.services.pause(name)
            await asyncio.sleep(fault.seconds)
            cluster.services.resume(name)
        case "failpoint":
            await cluster.stop(name, signal.SIGTERM)
            await cluster.start(name, fault.detail)
        case "disk error":
            await cluster.stop(name, signal.SIGTERM)
            await cluster.start(name, fault.detail)
            await asyncio.sleep(fault.seconds)
            await cluster.stop(name, signal.SIGTERM)
            await cluster.start(name)
        case _:
            raise ValueError(fault.kind)


async def _disturb(cluster: Cluster, fault: Fault) -> None:
    link = cluster.links[fault.target]
    async with cluster.locks[fault.target]:
        match fault.kind:
            case "cut":
                link.cut()
                return
            case "hold":
                link.hold()
            case "slow":
                link.delay_seconds, link.bytes_per_second = SLOW_SECONDS, SLOW_BYTES_PER_SECOND
            case "lose answers":
                link.loses_answers = True
        await asyncio.sleep(fault.seconds)
        link.restore()


async def _fill_disk(cluster: Cluster, fault: Fault) -> bool:
    """Fills the disk with one file, except for a bit of room."""
    if not cluster.has_disk:
        return False
    ballast = cluster.services.data_dir / "ballast"
    async with cluster.locks["disk"]:
        with ballast.open("wb") as file:
            while (room := shutil.disk_usage(cluster.services.data_dir).free - SPARED_BYTES) > 0:
                with suppress(OSError):  # A service has just taken some of the room.
                    os.posix_fallocate(file.fileno(), 0, file.seek(0, os.SEEK_END) + room)
                    break
        await asyncio.sleep(fault.seconds)
        ballast.unlink()
    return True


async def _step_clock(cluster: Cluster, fault: Fault) -> bool:
    clock = cluster.clocks.get(fault.target)
    if clock is None:
        return False
    async with cluster.locks[f"clock of {fault.target}"]:
        clock.set_step(int(fault.detail))
        await asyncio.sleep(fault.seconds)
        clock.set_step(0)
    return True
