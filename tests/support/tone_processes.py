"""`ToneProcesses`: the services as processes, of which generation runs the tone model of `tone_engine_process`.

`python -m tests.support.tone_processes` is such a generation service.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import soundfile

from dgx_music.storage.v1 import storage_pb2 as pb
from gateway.cli.commands.database.db_check import find_problems
from generation_service.config import GenerationSettings
from generation_service.rpc.server import build
from service_runtime.rpc.process import run_process
from storage_service.db.database import Database
from storage_service.maintenance.integrity import Finding
from tests.support import tone_engine_process
from tests.support.service_processes import ServiceProcesses
from tests.support.tone_model import RATE_HZ

MODULE = "tests.support.tone_processes"
TERMINAL_STATES = (pb.GENERATION_STATE_COMPLETED, pb.GENERATION_STATE_FAILED, pb.GENERATION_STATE_CANCELLED)
WAIT_SECONDS = 120.0


class ToneProcesses(ServiceProcesses):
    """Services whose generations a test creates and follows at storage."""

    async def start_worker(self, name: str = "generation", failpoint: str = "", **settings: str) -> None:
        """Starts a generation service, or one more."""
        await self.start(name, module=MODULE, DGX_MUSIC_FAILPOINT=failpoint, **settings)

    async def create(self, prompt: str = "a", seconds: float = 1.0, **fields: object) -> str:
        options = {"model_name": "tone", "sample_rate_hz": RATE_HZ, "channels": 2, "seed": 440, "max_attempts": 9}
        request = pb.CreateGenerationRequest(prompt=prompt, duration_seconds=seconds, **{**options, **fields})
        return (await self.storage.CreateGeneration(request, timeout=60, wait_for_ready=True)).generation.id

    async def get(self, generation_id: str) -> pb.Generation:
        return (await self.storage.GetGeneration(pb.GetGenerationRequest(id=generation_id), timeout=60)).generation

    async def wait_until(self, generation_id: str, is_reached: Callable[[pb.Generation], bool]) -> pb.Generation:
        """Returns the first version of the generation, as storage reports it, for which `is_reached` is true."""
        request = pb.WatchGenerationRequest(id=generation_id)
        watch = self.storage.WatchGeneration(request, timeout=WAIT_SECONDS, wait_for_ready=True)
        async for change in watch:
            if is_reached(change.generation):
                watch.cancel()
                return change.generation
        raise AssertionError(f"the stream ended with {change.generation}")

    async def wait_until_ended(self, generation_id: str) -> pb.Generation:
        return await self.wait_until(generation_id, lambda generation: generation.state in TERMINAL_STATES)

    async def wait_until_completed(self, generation_id: str) -> pb.Generation:
        """Returns the generation, of which the file is as recorded and the only one."""
        done = await self.wait_until_ended(generation_id)
        assert done.state == pb.GENERATION_STATE_COMPLETED, done.error_message
        assert self.files_of(generation_id) == [self.data_dir / done.file_path]
        data = (self.data_dir / done.file_path).read_bytes()
        assert hashlib.sha256(data).hexdigest() == dict(done.metadata)["file_sha256"]
        return done

    def files_of(self, generation_id: str) -> list[Path]:
        """The audio files of the generation in the library, also temporary ones."""
        return sorted((self.data_dir / "outputs").rglob(f"*{generation_id}*"))

    def samples_of(self, generation: pb.Generation) -> np.ndarray:
        """[n, channels], as integers."""
        return soundfile.read(self.data_dir / generation.file_path, dtype="int32", always_2d=True)[0]

    def spools_of(self, generation_id: str) -> list[str]:
        return sorted(path.name for path in (self.data_dir / "spool").glob(f"{generation_id}*"))

    def problems(self) -> list[Finding]:
        """What `db check --files` finds."""
        with Database(f"sqlite:///{self.data_dir}/dgx_music.db") as database:
            return list(find_problems(database, self.data_dir, read_files=True))


@asynccontextmanager
async def tone_processes(data_dir: Path, *names: str, **settings: str) -> AsyncIterator[ToneProcesses]:
    """Starts the named services, and kills all that run at the end of the block. Leases are short."""
    data_dir.mkdir(exist_ok=True)
    short = {"LEASE_SECONDS": "2", "RENEW_INTERVAL_SECONDS": "0.1", "LEASE_SWEEP_SECONDS": "0.2", "GRACE_SECONDS": "5"}
    services = ToneProcesses(data_dir, **{**{f"DGX_MUSIC_{name}": value for name, value in short.items()}, **settings})
    try:
        await services.start(*names)
        yield services
    finally:
        await services.close()


if __name__ == "__main__":
    run_process(
        GenerationSettings,
        "generation_address",
        lambda settings: build(
            settings, catalog=tone_engine_process.build_catalog(), engine_module=tone_engine_process.MODULE
        ),
    )
