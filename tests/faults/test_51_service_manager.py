"""The units of deploy/systemd, as plain processes with their environments: what they tell the service manager, and with
which status they end."""

from __future__ import annotations

import asyncio
import signal
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from dgx_music import AsyncClient
from tests.support.processes import free_ports
from tests.support.systemd_units import UNITS, Unit, read_unit

BY_NAME = {unit.stem.removeprefix("dgx-music").lstrip("-") or "all": unit for unit in UNITS}


@pytest.mark.slow
async def test_units_serve_report_and_stop(tmp_path: Path) -> None:
    names = ("storage", "export", "generation", "gateway")
    addresses = {name: f"127.0.0.1:{port}" for name, port in zip(names, free_ports(4), strict=True)}
    settings = {f"DGX_MUSIC_{name.upper()}_ADDRESS": address for name, address in addresses.items()}
    with ExitStack() as stack:
        units = [Unit(BY_NAME[name], tmp_path, **settings) for name in names]
        for unit in units:
            stack.callback(unit.close)
            await unit.start()
            assert await unit.receive_until("READY=1") == ["READY=1"]
        async with AsyncClient(addresses["gateway"]) as client:
            made = await client.generate("techno at 130 BPM", duration=1.0)
            assert (tmp_path / "dgx-music-export" / str(made.file_path)).is_file()
        for unit in reversed(units):
            await unit.receive_until("WATCHDOG=1")
            await unit.receive_until("WATCHDOG=1")
            unit.process.send_signal(signal.SIGTERM)
            await unit.receive_until("STOPPING=1")
            status, log = await unit.end()
            assert status == 0, log


@pytest.mark.slow
async def test_worker_of_a_template(tmp_path: Path) -> None:
    ports = dict(zip(("storage", "export", "generation", "gateway"), free_ports(4), strict=True))
    settings = {f"DGX_MUSIC_{name.upper()}_ADDRESS": f"127.0.0.1:{port}" for name, port in ports.items()}
    settings["DGX_MUSIC_DEVICES"] = "cpu"  # There is no GPU here.
    with ExitStack() as stack:
        units = [Unit(BY_NAME[name], tmp_path, **settings) for name in ("storage", "export", "gateway")]
        # What the gateway calls is the first instance; the second one has a socket alone.
        first = {"DGX_MUSIC_LISTEN": f"127.0.0.1:{ports['generation']}", "DGX_MUSIC_WORKER_SLOTS": "1"}
        units.append(Unit(BY_NAME["generation@"], tmp_path, instance="0", **settings, **first))
        units.append(Unit(BY_NAME["generation@"], tmp_path, instance="1", **settings))
        for unit in units:
            stack.callback(unit.close)
            await unit.start()
            await unit.receive_until("READY=1")
        assert (tmp_path / "dgx-music-generation-1/socket").is_socket()
        async with AsyncClient(settings["DGX_MUSIC_GATEWAY_ADDRESS"]) as client:
            workers: set[str] = set()
            while len(workers) < 2:
                made = await asyncio.gather(*(client.generate(f"techno {n}", duration=10.0) for n in range(6)))
                workers |= {(await client.get(str(one.id))).message.worker_id for one in made}
        for unit in reversed(units):
            unit.process.send_signal(signal.SIGTERM)
            status, log = await unit.end()
            assert status == 0, log


@pytest.mark.slow
async def test_all_services_in_one_unit(tmp_path: Path) -> None:
    with ExitStack() as stack:
        unit = Unit(BY_NAME["all"], tmp_path, DGX_MUSIC_GATEWAY_ADDRESS=f"127.0.0.1:{free_ports(1)[0]}")
        stack.callback(unit.close)
        await unit.start()
        await unit.receive_until("READY=1")
        unit.process.send_signal(signal.SIGTERM)
        await unit.receive_until("STOPPING=1")
        assert (await unit.end())[0] == 0


@pytest.mark.slow
async def test_server_that_cannot_serve_is_not_ready(tmp_path: Path) -> None:
    prevented = read_unit(BY_NAME["gateway"])["RestartPreventExitStatus"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for settings, is_prevented in (
            ({"DGX_MUSIC_GATEWAY_ADDRESS": address}, False),
            ({"DGX_MUSIC_GRACE_SECONDS": "soon"}, True),
        ):
            with ExitStack() as stack:
                unit = Unit(BY_NAME["gateway"], tmp_path, **settings)
                stack.callback(unit.close)
                stack.callback((tmp_path / "dgx-music-gateway.notify").unlink)
                await unit.start()
                status, log = await unit.end()
                assert (status, [str(status)] == prevented) == (2 if is_prevented else 1, is_prevented), log
                assert "Traceback" not in log
                assert not unit.has_told()
