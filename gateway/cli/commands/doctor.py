"""`dgx-music doctor`: what this installation has to make music with, whether it works, and what to do where not."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from dgx_music.errors import ServiceError
from gateway.cli.display.console import Screen, escaped
from gateway.cli.session.command_errors import FAILURE
from gateway.config import GatewaySettings
from generation_service.config import GenerationSettings
from generation_service.models.diagnostics import Finding, diagnose
from service_runtime.rpc.probe import probe
from storage_service.config import StorageSettings
from storage_service.db.sqlite import journal_mode, sqlite3

LEAST_FREE_BYTES = 2**30
"""Less is told: a minute of music takes 12 MB in files and as much again while it is being made."""
STYLES = {"ok": "green", "missing": "yellow", "broken": "red"}


def doctor(data_dir: Path | None, screen: Screen) -> int:
    """Tells all that was found; gives 1 where something that is set up does not work, else 0."""
    chosen = {} if data_dir is None else {"data_dir": data_dir}
    gateway = GatewaySettings.model_validate(chosen)
    findings = [
        *diagnose(GenerationSettings.model_validate(chosen)),
        _data_dir(gateway.data_dir.expanduser().absolute()),
        _database(StorageSettings.model_validate(chosen)),
        *asyncio.run(_addresses(gateway)),
    ]
    is_well = all(finding.state != "broken" for finding in findings)
    if screen.as_json:
        sys.stdout.write(json.dumps({"ok": is_well, "findings": [asdict(finding) for finding in findings]}) + "\n")
    else:
        screen.facts(line for finding in findings for line in _lines(finding))
    return 0 if is_well else FAILURE


def _lines(finding: Finding) -> Iterator[tuple[str, str]]:
    style = STYLES[finding.state]
    yield finding.name, f"[{style}]{finding.state}[/]  {escaped(finding.found)}"
    if finding.advice:
        yield "", f"→ {escaped(finding.advice)}"


def _data_dir(folder: Path) -> Finding:
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        advice = "choose another folder by --data-dir or DGX_MUSIC_DATA_DIR"
        return Finding("data directory", "broken", f"{folder} can't be written to", advice)
    free = shutil.disk_usage(there).free
    if free < LEAST_FREE_BYTES:
        return Finding("data directory", "broken", f"{folder}, {free / 1e9:.2f} GB free", "make room")
    return Finding("data directory", "ok", f"{folder}, {free / 1e9:.1f} GB free")


def _database(settings: StorageSettings) -> Finding:
    """Looks only: a database that is not there yet is left so."""
    from storage_service.db import schema
    from storage_service.db.database import parse_url

    found = "DGX_MUSIC_DATABASE_URL"
    try:
        url = parse_url(settings.resolved_database_url())
        found = url.render_as_string(hide_password=True)
        if url.drivername == "sqlite":
            file = Path(str(url.database))
            mode = journal_mode(sqlite3.sqlite_version_info, file.parent)
            found += f", SQLite {sqlite3.sqlite_version}, journal mode {mode}"
            if not file.exists():
                return Finding("database", "ok", f"{found}, made at first use")
        schema.check(url)
    except ServiceError as error:
        return Finding("database", "broken", found, error.message)
    return Finding("database", "ok", f"{found}, revision {schema.REVISIONS[-1]}")


async def _addresses(settings: GatewaySettings) -> list[Finding]:
    """Those that are set: without one, all runs in the command's own process."""
    names = [
        name
        for name in ("gateway", "generation", "storage", "export")
        if f"{name}_address" in settings.model_fields_set and getattr(settings, f"{name}_address")
    ]
    if not names:
        return [Finding("services", "ok", "no address is set: they run in the command's own process")]
    return list(await asyncio.gather(*(_address(name, getattr(settings, f"{name}_address")) for name in names)))


async def _address(name: str, address: str) -> Finding:
    problem = await probe(address)
    if problem is None:
        return Finding(name, "ok", f"answers at {address}")
    variable = f"DGX_MUSIC_{name.upper()}_ADDRESS"
    return Finding(name, "broken", problem, f"start `dgx-music serve {name}` there, or unset {variable}")
