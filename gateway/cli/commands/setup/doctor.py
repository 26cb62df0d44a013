"""`dgx-music doctor`: checks whether this installation can generate music, and suggests how to fix problems."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import grpc.aio

from dgx_music import channel
from dgx_music.credentials import Credentials
from dgx_music.errors import FailedPrecondition, ServiceError
from dgx_music.gateway.v1 import gateway_pb2_grpc
from dgx_music.generation.v1.generation_pb2 import Engine, GetEngineStatusRequest
from export_service.config import ExportSettings
from gateway.cli.commands.setup.bucket_check import check_bucket
from gateway.cli.commands.setup.settings_check import check_access, check_settings
from gateway.cli.display.console import Console, escape_text
from gateway.cli.display.engine_view import state_name
from gateway.cli.playback.sound_card import SoundUnavailable, find_output
from gateway.cli.session.command_errors import FAILURE
from gateway.cli.session.command_settings import how_to_unset
from gateway.config import GatewaySettings
from gateway.embedded.ownership import running_owner
from gateway.timeouts import CALL_TIMEOUT_SECONDS
from generation_service.config import GenerationSettings
from generation_service.models.diagnostics import diagnose
from generation_service.models.finding import Finding
from service_runtime.rpc.probe import probe, probe_credentials
from storage_service.config import StorageSettings
from storage_service.db.sqlite import journal_mode, sqlite3

MIN_FREE_BYTES = 2**30
"""Less is reported: a minute of music takes 12 MB in files, and as much again while it is being generated."""
EXAMPLE = 'dgx-music generate "lo-fi hip hop at 84 BPM in A minor"'
STYLES = {"ok": "green", "missing": "yellow", "broken": "red"}


def doctor(data_dir: Path | None, console: Console) -> int:
    """Prints all findings and what to do next; returns 1 if something that is configured does not work, else 0."""
    findings = list(_examine({} if data_dir is None else {"data_dir": data_dir}))
    is_ok = all(finding.state != "broken" for finding in findings)
    if console.as_json:
        listed = [asdict(finding) for finding in findings]
        console.print_object({"ok": is_ok, "findings": listed, "next": next_step(findings)})
    else:
        console.print_fields(line for finding in findings for line in _lines(finding))
        console.print_line("")
        console.print_line(f"Next: {next_step(findings)}")
    return 0 if is_ok else FAILURE


def _examine(chosen: dict[str, Path]) -> Iterator[Finding]:
    settings_findings = list(check_settings())
    yield from settings_findings
    if any(finding.name == "settings" for finding in settings_findings):
        return  # The others need valid settings.
    gateway = GatewaySettings.model_validate(chosen)
    yield from check_access(gateway)
    yield from diagnose(GenerationSettings.model_validate(chosen))
    yield check_sound()
    yield _data_dir(gateway.data_dir.expanduser().absolute())
    yield _database(StorageSettings.model_validate(chosen))
    if (export := ExportSettings.model_validate(chosen)).library_url:
        yield check_bucket(export)
    try:
        credentials = probe_credentials(gateway)
    except FailedPrecondition:
        return  # Which is a finding already.
    yield from asyncio.run(_addresses(gateway, credentials))
    yield from asyncio.run(_running_engines(gateway, credentials))


def next_step(findings: Sequence[Finding]) -> str:
    """Returns the one thing to do next, with the command wherever there is one."""
    by_name = {finding.name: finding for finding in findings}
    for finding in findings:
        if finding.state == "broken":
            return f"{finding.name}: {finding.advice}" if finding.advice else f"see {finding.name} above"
    if "gateway" in by_name:
        return EXAMPLE  # What this machine lacks, the server there has.
    for name in ("torch", "musicgen"):
        if name in by_name and by_name[name].state == "missing":
            command = by_name[name].advice.removeprefix("run ").strip("`")
            return f"{command} for MusicGen, or try the synthesizer that is built in: {EXAMPLE}"
    if "services" in by_name:
        return f"{EXAMPLE}; to keep the model loaded in between, run `dgx-music serve` in another terminal"
    return EXAMPLE


def _lines(finding: Finding) -> Iterator[tuple[str, str]]:
    style = STYLES[finding.state]
    yield finding.name, f"[{style}]{finding.state}[/]  {escape_text(finding.found)}"
    if finding.advice:
        yield "", f"→ {escape_text(finding.advice)}"


def _data_dir(folder: Path) -> Finding:
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        advice = "choose another folder with --data-dir or DGX_MUSIC_DATA_DIR"
        return Finding("data directory", "broken", f"{folder} is not writable", advice)
    free = shutil.disk_usage(existing).free
    if free < MIN_FREE_BYTES:
        return Finding("data directory", "broken", f"{folder}, {free / 1e9:.2f} GB free", "free up disk space")
    return Finding("data directory", "ok", f"{folder}, {free / 1e9:.1f} GB free")


def _database(settings: StorageSettings) -> Finding:
    """Checks the database without creating it."""
    from storage_service.database_url import mask_url, parse_url
    from storage_service.db import schema

    found = "DGX_MUSIC_DATABASE_URL"
    try:
        url = parse_url(settings.resolved_database_url())
        found = mask_url(url)
        if url.drivername == "sqlite":
            file = Path(str(url.database))
            mode = journal_mode(sqlite3.sqlite_version_info, file.parent)
            found += f", SQLite {sqlite3.sqlite_version}, journal mode {mode}"
            if not file.exists():
                return Finding("database", "ok", f"{found}, created at first use")
        schema.check(url)
    except ServiceError as error:
        return Finding("database", "broken", found, error.message)
    return Finding("database", "ok", f"{found}, revision {schema.REVISIONS[-1]}")


async def _addresses(settings: GatewaySettings, credentials: Credentials) -> list[Finding]:
    """Checks the addresses that are configured. Without any, the services run within the command, or in a server that
    owns the data directory."""
    names = [
        name
        for name in ("gateway", "generation", "storage", "export")
        if f"{name}_address" in settings.model_fields_set and getattr(settings, f"{name}_address")
    ]
    if names:
        addresses = [(name, getattr(settings, f"{name}_address")) for name in names]
        return list(await asyncio.gather(*(_address(*address, credentials) for address in addresses)))
    if (owner := running_owner(settings.data_dir.expanduser().absolute())) is not None:
        return [Finding("server", "ok", f"runs at {owner}")]
    return [Finding("services", "ok", "no server runs and no address is configured, so they run within the command")]


async def _address(name: str, address: str, credentials: Credentials) -> Finding:
    problem = await probe(address, credentials)
    if problem is None:
        return Finding(name, "ok", f"responds at {address}")
    if "DGX_MUSIC_TLS_" in problem:
        return Finding(name, "broken", *problem.split("; ", 1))
    command = "dgx-music serve" if name == "gateway" else f"dgx-music serve {name}"
    return Finding(name, "broken", problem, f"start `{command}` there, or {how_to_unset(f'{name}_address')}")


def check_sound() -> Finding:
    """Checks what `play` needs."""
    try:
        _, name = find_output()
    except SoundUnavailable as error:
        return Finding("sound", "missing", error.problem, error.way_out)
    return Finding("sound", "ok", name)


async def _running_engines(settings: GatewaySettings, credentials: Credentials) -> list[Finding]:
    """Describes the engines of the configured gateway, or of the data directory's server, if it responds."""
    address = settings.gateway_address or running_owner(settings.data_dir.expanduser().absolute())
    if address is None:
        return []
    try:
        async with channel.connect(address, credentials) as gateway:
            music = gateway_pb2_grpc.MusicServiceStub(gateway)
            status = await music.GetEngineStatus(GetEngineStatusRequest(), timeout=CALL_TIMEOUT_SECONDS)
    except grpc.aio.AioRpcError:
        return []
    return [_engine(engine, address) for engine in status.engines]


def _engine(engine: Engine, address: str) -> Finding:
    state = state_name(engine)
    found = f"{engine.device} at {address}: {state}, {engine.running} running, {engine.waiting} waiting"
    if engine.restarts:
        found += f", restarted {engine.restarts} times"
    return Finding("running engine", "broken" if state == "failed" else "ok", found, engine.problem)
