"""Gives damaged files to a running export service: uploads of every kind, files of the library that were damaged on the
disk, and covers. Each is refused with a clear error, or gets a right answer.

    python -m tests.fuzz.files --count 2000 --seed 1

A failure prints the number of the mutant, which `--only` repeats.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio
import psutil

from dgx_music.audio.v1 import audio_pb2
from dgx_music.audio.v1.audio_pb2 import FileFormat, OutputOptions
from dgx_music.export.v1 import export_pb2
from tests.fuzz.file_corpus import LIBRARY_FORMATS, SECONDS, pictures, uploads
from tests.fuzz.mutations import mutate
from tests.support.export_client import ExportClient, music, new_id
from tests.support.export_servers import run_export_process
from tests.support.pictures import png

CALL_SECONDS = 30.0
"""No call on a file of a second may take longer, however busy the machine is."""
MAX_MEMORY_BYTES = 400 << 20
"""How much the process may use, whatever the files of at most 1 MB claim. Two thousand take 252 MiB."""
REFUSALS = {
    "INVALID_ARGUMENT",
    "UNAVAILABLE",
    "NOT_FOUND",
    "FAILED_PRECONDITION",
    "DATA_LOSS",
    "OUT_OF_RANGE",
}
LEAKS = ("Traceback", "/tmp/", ".py", "object at 0x")
"""What no caller may read."""
FAILED_PREFIX = "fuzz-failure-"


class MutantError(AssertionError):
    """The service did not survive a mutant, or did not answer as it should."""


@dataclass
class Report:
    """What became of the mutants."""

    outcomes: Counter[str] = field(default_factory=Counter)
    """Kind and status → how often."""
    slowest_seconds: float = 0.0
    peak_bytes: int = 0

    def __str__(self) -> str:
        lines = [f"{count:6} {outcome}" for outcome, count in sorted(self.outcomes.items())]
        return "\n".join(
            [*lines, f"slowest call {self.slowest_seconds:.2f} s, peak memory {self.peak_bytes >> 20} MiB"]
        )


class FileFuzzer:
    """Feeds mutants to one export service."""

    def __init__(self, client: ExportClient, pid: int, seed: int) -> None:
        self._client, self._process, self._seed = client, psutil.Process(pid), seed
        self._library: dict[str, tuple[str, Path, bytes]] = {}
        """Format → id, path and content of a file of the library."""
        self._renders: dict[str, tuple[str, Path, bytes]] = {}
        self.report = Report()

    async def prepare(self) -> None:
        """Puts a file of each format into the library, with a cover where the format can have one."""
        samples = music(SECONDS)
        for name in LIBRARY_FORMATS:
            options = OutputOptions(format=FileFormat.Value(name))
            generation_id = new_id()
            exported = await self._client.export(generation_id, samples, output=options)
            edit = export_pb2.EditTagsRequest(generation_id=generation_id, cover=png(8, 8))
            try:
                exported_path = (await self._client.stub.EditTags(edit, timeout=CALL_SECONDS)).file_path
            except grpc.aio.AioRpcError:
                exported_path = exported.file_path
            path = self._client.data_dir / exported_path
            self._library[name] = generation_id, path, path.read_bytes()

    async def run(self, number: int) -> None:
        """Makes the mutant with this number and gives it to the service. Raises MutantError."""
        kind = random.Random(f"{self._seed} {number}").choices(("upload", "library", "cover"), (6, 5, 1))[0]
        self._reset_peak()
        await {"upload": self._upload, "library": self._damage, "cover": self._edit_cover}[kind](number)
        self._check_process(number)

    async def _upload(self, number: int) -> None:
        files = uploads()
        name = self._pick(number, list(files))
        mutant = mutate(self._name(number), files[name], list(files.values()))
        answer = await self._call(number, f"upload {name}", mutant, self._client.import_clip(mutant))
        if isinstance(answer, export_pb2.ImportClipResponse):
            samples = await self._client.read_audio(answer.clip_id)
            if samples.shape != (answer.frames, answer.channels):
                raise MutantError(f"mutant {number} of {name}: {samples.shape} samples, not {answer.frames} frames")
            await self._client.stub.DeleteFile(export_pb2.DeleteFileRequest(generation_id=answer.clip_id), timeout=60)

    async def _damage(self, number: int) -> None:
        name = self._pick(number, list(self._library))
        generation_id, path, content = self._library[name]
        mutant = mutate(self._name(number), content, [content for *_, content in self._library.values()])
        path.write_bytes(mutant)
        stub, options = self._client.stub, OutputOptions(format=audio_pb2.FILE_FORMAT_FLAC_16)
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "waveform": lambda: stub.GetWaveform(
                export_pb2.GetWaveformRequest(generation_id=generation_id, points=50), timeout=CALL_SECONDS
            ),
            "beats": lambda: stub.GetBeatGrid(
                export_pb2.GetBeatGridRequest(generation_id=generation_id), timeout=CALL_SECONDS
            ),
            "stream": lambda: self._client.read_audio(generation_id, level=audio_pb2.AUDIO_LEVEL_FINAL),
            "list": lambda: stub.ListFiles(export_pb2.ListFilesRequest(page_size=100), timeout=CALL_SECONDS),
            "download": lambda: self._client.download(generation_id),
            "render": lambda: self._render(generation_id, options),
            "edit": lambda: stub.EditTags(
                export_pb2.EditTagsRequest(generation_id=generation_id, title="New"), timeout=CALL_SECONDS
            ),
        }
        try:
            for action, call in calls.items():
                await self._call(number, f"{action} {name}", mutant, call())
        finally:
            path.write_bytes(content)

    async def _render(self, generation_id: str, options: OutputOptions) -> None:
        request = export_pb2.RenderRequest(generation_id=generation_id, output=options)
        rendered = await self._client.stub.Render(request, timeout=CALL_SECONDS)
        delete = export_pb2.DeleteFileRequest(generation_id=generation_id, render_id=rendered.render_id)
        await self._client.stub.DeleteFile(delete, timeout=CALL_SECONDS)

    async def _edit_cover(self, number: int) -> None:
        covers = pictures()
        name = self._pick(number, list(covers))
        generation_id, path, content = self._library[self._pick(number + 1, list(self._library))]
        mutant = mutate(self._name(number), covers[name], list(covers.values()))
        edit = export_pb2.EditTagsRequest(generation_id=generation_id, cover=mutant)
        await self._call(number, f"cover {name}", mutant, self._client.stub.EditTags(edit, timeout=CALL_SECONDS))
        path.write_bytes(content)

    async def _call(self, number: int, action: str, mutant: bytes, call: Awaitable[object]) -> object:
        """Returns the answer, or None if the call was refused as it may be."""
        start = time.monotonic()
        status, answer, problem = "OK", None, ""
        try:
            answer = await asyncio.wait_for(call, CALL_SECONDS + 5)
        except TimeoutError:
            status = problem = "hangs"
        except grpc.aio.AioRpcError as error:
            status, details = error.code().name, error.details() or ""
            if status not in REFUSALS or not details:
                problem = f"{status}: {details}"
            elif leak := next((leak for leak in LEAKS if leak in details), ""):
                problem = f"tells {leak!r}: {details}"
        except AssertionError as error:
            problem = f"an inconsistent stream: {error}"
        seconds = time.monotonic() - start
        self.report.slowest_seconds = max(self.report.slowest_seconds, seconds)
        self.report.outcomes[f"{action.split()[0]} {status}"] += 1
        if problem:
            file = Path(tempfile.gettempdir(), f"{FAILED_PREFIX}{self._seed}-{number}")
            file.write_bytes(mutant)
            raise MutantError(f"mutant {number}, {action} ({file}): {problem}")
        return answer

    def _check_process(self, number: int) -> None:
        if not self._process.is_running() or self._process.status() == psutil.STATUS_ZOMBIE:
            raise MutantError(f"mutant {number}: the process has ended")
        peak = self._peak_bytes()
        self.report.peak_bytes = max(self.report.peak_bytes, peak)
        if peak > MAX_MEMORY_BYTES:
            raise MutantError(f"mutant {number}: the process uses {peak >> 20} MiB")

    def _reset_peak(self) -> None:
        Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")

    def _peak_bytes(self) -> int:
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return 0

    def _name(self, number: int) -> str:
        return f"{self._seed} mutant {number}"

    def _pick(self, number: int, names: list[str]) -> str:
        return random.Random(f"{self._seed} file {number}").choice(names)


async def fuzz_files(
    count: int, seed: int, data_dir: Path, only: int | None = None, keep_going: bool = False
) -> Report:
    """Gives so many mutants to a service. Raises MutantError at the first problem, unless told to keep going."""
    problems = []
    log = data_dir / "export.log"
    with log.open("wb") as file:
        async with run_export_process(data_dir / "data", log=file) as (process, client):
            fuzzer = FileFuzzer(client, process.pid, seed)
            await fuzzer.prepare()
            for number in [only] if only is not None else range(count):
                try:
                    await fuzzer.run(number)
                except MutantError as error:
                    if not keep_going or process.returncode is not None:
                        raise
                    problems.append(str(error))
                    print(error, flush=True)
    if b"Traceback" in log.read_bytes():
        print(log.read_text(errors="replace"))
        raise MutantError("the log has tracebacks")
    if problems:
        raise MutantError(f"{len(problems)} problems")
    return fuzzer.report


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--count", type=int, default=2000, help="number of mutants (default: 2000)")
    parser.add_argument("--seed", type=int, default=1, help="what they are drawn from (default: 1)")
    parser.add_argument("--only", type=int, help="run the mutant with this number alone")
    parser.add_argument("--keep-going", action="store_true", help="report every problem, not only the first")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dgx-music-fuzz-") as folder:
        print(
            asyncio.run(fuzz_files(arguments.count, arguments.seed, Path(folder), arguments.only, arguments.keep_going))
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
