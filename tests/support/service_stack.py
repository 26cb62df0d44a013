"""`ServiceStack`: storage, export and generation servers that a test starts and stops one by one, and `server_process`:
a generation server in a process of its own beside them."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path

from dgx_music.channel import connect
from dgx_music.export.v1 import export_pb2_grpc
from dgx_music.storage.v1 import storage_pb2 as pb
from dgx_music.storage.v1 import storage_pb2_grpc
from export_service.config import ExportSettings
from export_service.rpc.server import build as build_export
from generation_service.config import GenerationSettings
from generation_service.models.catalog import BuiltInModel, ModelCatalog
from generation_service.models.sketch import Sketch
from generation_service.processes.engine_link import HOST_MODULE
from generation_service.rpc.server import GenerationService
from generation_service.rpc.server import build as build_generation
from service_runtime.rpc.server import serve_services
from storage_service.config import StorageSettings
from storage_service.rpc.server import build as build_storage
from tests.support.processes import process
from tests.support.tone_model import ToneModel

ROOT = Path(__file__).parents[2]


class ServiceStack:
    """Storage, export and generation on one data directory, each with a server that can be started and stopped."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = ToneModel()
        self.storage_settings: dict[str, object] = {}
        self.addresses = {name: f"unix:{folder}/{name}.sock" for name in ("storage", "export", "generation")}
        self.generation: GenerationService | None = None
        self._running: dict[str, AsyncExitStack] = {}
        self._channels = {name: connect(self.addresses[name]) for name in ("storage", "export")}
        self.storage = storage_pb2_grpc.StorageServiceStub(self._channels["storage"])
        self.export = export_pb2_grpc.ExportServiceStub(self._channels["export"])

    def models(self) -> list[BuiltInModel]:
        return [self.model.entry, BuiltInModel(Sketch().info, Sketch)]

    def common_settings(self) -> dict[str, object]:
        return {
            "data_dir": self.folder,
            "storage_address": self.addresses["storage"],
            "export_address": self.addresses["export"],
            "generation_address": self.addresses["generation"],
            "grace_seconds": 0.1,
        }

    async def start(self, *names: str, **overrides: object) -> None:
        """Starts servers. `overrides` are settings of the generation service, and the main program of its engine
        processes."""
        for name in names:
            settings: StorageSettings | ExportSettings | GenerationSettings
            if name == "storage":
                settings = StorageSettings(
                    **{"lease_sweep_seconds": 0.2, **self.common_settings(), **self.storage_settings}
                )
                service = build_storage(settings)
            elif name == "export":
                settings = ExportSettings(**self.common_settings())
                service = build_export(settings)
            else:
                module = str(overrides.pop("engine_module", HOST_MODULE))
                settings = GenerationSettings(**{**self.common_settings(), "renew_interval_seconds": 0.05, **overrides})
                catalog = ModelCatalog(self.models)
                service = self.generation = build_generation(settings, catalog=catalog, engine_module=module)
            stack = AsyncExitStack()
            await stack.enter_async_context(serve_services([service], [self.addresses[name]], settings))
            self._running[name] = stack

    async def stop(self, name: str) -> None:
        await self._running.pop(name).aclose()

    async def stop_all(self) -> None:
        for name in ("generation", "export", "storage"):
            if name in self._running:
                await self.stop(name)
        for channel in self._channels.values():
            await channel.close()

    async def create(self, prompt: str = "a", seconds: float = 0.5, **fields: object) -> str:
        options = {"model_name": "tone", "sample_rate_hz": 8000, "channels": 2, "seed": 440, **fields}
        request = pb.CreateGenerationRequest(prompt=prompt, duration_seconds=seconds, **options)
        return (await self.storage.CreateGeneration(request, timeout=60, wait_for_ready=True)).generation.id

    async def create_sketch(self, seconds: float = 2.0, seed: int = 7) -> str:
        return await self.create("house at 124 BPM", seconds, model_name="sketch", sample_rate_hz=32000, seed=seed)

    async def wait_until(self, generation_id: str, is_reached: Callable[[pb.Generation], bool]) -> pb.Generation:
        """Returns the first version of the generation, as storage reports it, for which `is_reached` is true."""
        watch = self.storage.WatchGeneration(
            pb.WatchGenerationRequest(id=generation_id), timeout=60, wait_for_ready=True
        )
        async for change in watch:
            if is_reached(change.generation):
                watch.cancel()
                return change.generation
        raise AssertionError(f"the stream ended with {change.generation}")

    async def wait_until_ended(self, generation_id: str) -> pb.Generation:
        """Returns the generation in its terminal state."""
        terminal_states = (pb.GENERATION_STATE_COMPLETED, pb.GENERATION_STATE_FAILED, pb.GENERATION_STATE_CANCELLED)
        return await self.wait_until(generation_id, lambda generation: generation.state in terminal_states)

    async def get(self, generation_id: str) -> pb.Generation:
        return (await self.storage.GetGeneration(pb.GetGenerationRequest(id=generation_id), timeout=60)).generation

    async def wait_for_jobs(self) -> None:
        """Waits until all jobs that the worker has now are done."""
        await asyncio.wait(set(self.generation._worker._jobs))

    def audio_files(self) -> list[Path]:
        return list((self.folder / "outputs").rglob("*.wav"))

    def spools(self) -> list[Path]:
        return list((self.folder / "spool").iterdir())


def is_pending_after(attempt: int) -> Callable[[pb.Generation], bool]:
    """Returns a condition for `wait_until`: the generation waits for another attempt after this one."""
    return lambda generation: (generation.state, generation.attempt) == (pb.GENERATION_STATE_PENDING, attempt)


def server_process(
    stack: ServiceStack, module: str, *arguments: str, stderr: int | None = None, **overrides: object
) -> AbstractAsyncContextManager[asyncio.subprocess.Process]:
    """Runs `python -m module` as a generation server that uses the stack's storage and export."""
    variables = {
        f"DGX_MUSIC_{name.upper()}": str(value) for name, value in {**stack.common_settings(), **overrides}.items()
    }
    return process(sys.executable, "-m", module, *arguments, env={**os.environ, **variables}, cwd=ROOT, stderr=stderr)
