"""A soak on many hosts: several servers of each kind, on one Postgres and one S3 bucket, of which any may be killed."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from dgx_music.export.v1 import export_pb2 as export
from export_service.objects.write_check import PROBE_KEY
from tests.soak import oracle
from tests.soak.calls import Caller
from tests.soak.cluster import SETTINGS, Cluster
from tests.soak.ledger import COMPLETED, Ledger
from tests.soak.run import Report, run_on
from tests.soak.schedule import Schedule
from tests.soak.violation import Violation
from tests.support.command_line import DGX_MUSIC, environment
from tests.support.many_hosts import ManyHosts
from tests.support.postgres import postgres_server, url_of
from tests.support.s3_server import S3Server, s3_server

if TYPE_CHECKING:
    from obstore.store import S3Store

COUNTS = {"storage": 3, "export": 2, "generation": 4, "gateway": 2}
DATABASE, PREFIX = "music", "music"
PAGE_SIZE = 1000
CHECK_SECONDS = 600
SOUND = (export.FILE_CONDITION_INTACT,)


def host_names(counts: Mapping[str, int] = COUNTS) -> list[str]:
    """The names of the servers that a schedule may choose from."""
    return [f"{kind}-{number}" for kind, count in counts.items() for number in range(1, count + 1)]


async def run_on_hosts(
    schedule: Schedule,
    folder: Path,
    counts: Mapping[str, int] = COUNTS,
    show: Callable[[str], None] = lambda _: None,
    **settings: str,
) -> Report:
    """Runs the schedule below `folder`. `settings` are further environment variables of the services."""
    report, started_at = Report(), time.monotonic()
    with ExitStack() as engines:
        postgres = engines.enter_context(postgres_server())
        postgres.execute(f"CREATE DATABASE {DATABASE}")
        url = url_of(postgres, DATABASE)
        s3 = engines.enter_context(s3_server())
        bucket = engines.enter_context(s3.bucket())
        library = s3.settings(bucket, prefix=PREFIX)
        settings = {**SETTINGS, **library, "DGX_MUSIC_DATABASE_URL": url, **settings}
        data_dir = folder / "hosts"
        data_dir.mkdir(parents=True)
        async with AsyncExitStack() as stack:
            hosts = ManyHosts(data_dir, counts, **settings)
            stack.push_async_callback(hosts.close)
            cluster = Cluster(
                hosts,
                links={},
                clocks={},
                names=hosts.names,
                engines={"postgres": partial(crash_postgres, url), "s3": partial(restart_s3, s3)},
                address=hosts.together("gateway"),
            )
            await cluster.start(hosts.names[0])  # It creates the tables.
            await asyncio.gather(*(cluster.start(name) for name in hosts.names[1:]))
            show(f"{len(hosts.names)} servers run")
            folders = [data_dir / name for name in hosts.of_kind("export")]
            await run_on(cluster, schedule, report, show, folders, check_answers)
        if not report.violations:  # Else jobs have been left alone.
            report.violations += check_engines(s3.store(bucket), report.ledger)
            report.violations += await asyncio.to_thread(check_by_command, data_dir, settings)
        report.violations += oracle.check_logs(folder, data_dir)
    report.lines.append(f"{time.monotonic() - started_at:.0f} s")
    return report


def crash_postgres(url: str, seconds: float) -> None:
    """Kills a process of the Postgres server, which then ends all others, and recovers from its log."""
    with psycopg.connect(url) as connection:
        others = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        row = connection.execute(others).fetchone()
    if row is not None:
        os.kill(row[0], signal.SIGKILL)
    time.sleep(seconds)


def restart_s3(s3: S3Server, seconds: float) -> None:
    """Kills the S3 server, and starts it again."""
    s3.kill()
    time.sleep(seconds)
    s3.start()


async def check_answers(caller: Caller, ledger: Ledger) -> list[Violation]:
    """Compares what the services answer, and the files in the bucket, with what was acknowledged."""
    return [*await oracle.check_answers(caller, ledger), *await _check_files(caller, ledger)]


async def _check_files(caller: Caller, ledger: Ledger) -> list[Violation]:
    """Has export read all files, and list them."""
    found: list[Violation] = []
    expected = {entry.id for entry in ledger.entries if entry.state == COMPLETED and not entry.is_deleted}
    verified = set()
    async for one in caller.music.VerifyFiles(export.VerifyFilesRequest(), timeout=CHECK_SECONDS):
        if not one.render_id:
            verified.add(one.generation_id)
        if one.condition not in SOUND and not (one.render_id and one.condition == export.FILE_CONDITION_PRESENT):
            condition = export.FileCondition.Name(one.condition)
            found.append(Violation("file damaged", one.generation_id, f"{condition} {one.render_id} {one.problem}"))
    found += [Violation("not verified", one) for one in expected - verified]
    listed = [(one.generation_id, one.render_id) for one in await _list_files(caller)]
    renders = {(entry.id, render) for entry in ledger.entries if not entry.is_deleted for render in entry.renders}
    wanted = {(one, "") for one in expected} | renders
    found += [Violation("files missing", *one) for one in wanted - set(listed)]
    found += [Violation("stray file", *one) for one in set(listed) - wanted]
    if len(listed) != len(set(listed)):
        found.append(Violation("listed twice", "files", str(len(listed) - len(set(listed)))))
    return found


async def _list_files(caller: Caller) -> list[export.LibraryFile]:
    files: list[export.LibraryFile] = []
    request = export.ListFilesRequest(page_size=PAGE_SIZE)
    while True:
        page = await caller.require("ListFiles", request, "all files", CHECK_SECONDS)
        files += page.files
        request.page_token = page.next_page_token
        if not request.page_token:
            return files


def check_engines(store: S3Store, ledger: Ledger) -> Iterator[Violation]:
    """Finds objects that belong to no finished generation, and edits that changed what they keep."""
    owners = {entry.id: entry for entry in ledger.entries if entry.state == COMPLETED and not entry.is_deleted}
    keys: dict[str, list[str]] = {}
    for batch in store.list(PREFIX):
        for item in batch:
            key = str(item["path"])
            if key == f"{PREFIX}/{PROBE_KEY}":
                continue  # The health check wrote it.
            owner = next((part for part in key.replace(".", "/").split("/") if part in owners), None)
            if owner is None:
                yield Violation("stray object", key)
            else:
                keys.setdefault(owner, []).append(key)

    def open_output(entry: Any) -> io.BytesIO:
        (key,) = (key for key in keys[entry.id] if key.endswith(".wav") and "/outputs/" in f"/{key}")
        return io.BytesIO(bytes(store.get(key).bytes()))

    for entry in owners.values():
        if entry.id not in keys:
            yield Violation("files missing", entry.subject, "there is no object")
        elif entry.source is None or entry.source.id in keys:
            yield from oracle.check_kept_samples(entry, open_output)


def check_by_command(data_dir: Path, settings: Mapping[str, str]) -> Iterator[Violation]:
    """Runs `dgx-music db check --files`, once all services have ended."""
    env = environment(DGX_MUSIC_DATA_DIR=str(data_dir / "export-1"), **settings)
    command = [str(DGX_MUSIC), "db", "check", "--files"]
    checked = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=CHECK_SECONDS)
    return iter([Violation("db check", "command", checked.stdout + checked.stderr)] if checked.returncode else [])
