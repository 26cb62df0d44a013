"""Standard input, output and error of the process, also where they are closed, full or have lost their reader.

Results go to standard output: if they can't be written, the command fails. Notices go to standard error: if they can't
be written, the command goes on without them.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.cli.session.character_fallback import ERROR_HANDLER, register_fallback, terminal_encoding

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

STANDARD_OUTPUT = Path("-")
"""The value of --output that stands for it."""
OUTPUT_LOST = 3
"""Exit status of a command that has done its work, but could not write all of its output."""
PIPE_BUFFER_BYTES = 4096
"""PIPE_BUF: a pipe that is ready takes as many bytes without waiting."""
READER_GONE = 128 + signal.SIGPIPE
"""The same if a pipe was closed by its reader, as for other programs."""


class OutputLost(Exception):
    """Standard output can't be written to. Not an OSError, which would be handled as an error of another file."""

    def __init__(self, cause: OSError) -> None:
        self.exit_status = READER_GONE if cause.errno == errno.EPIPE else OUTPUT_LOST
        reason = {
            errno.EPIPE: "it was closed by its reader",
            errno.EBADF: "it is closed",
        }.get(cause.errno or 0, cause.strerror or str(cause))
        super().__init__(f"can't write to standard output: {reason}")


class _StandardOutput(io.FileIO):
    """Raises OutputLost once; later writes, such as that of the buffer at exit, are discarded."""

    _is_lost = False

    def write(self, data: ReadableBuffer, /) -> int:
        size = memoryview(data).nbytes
        if self._is_lost:
            return size
        try:
            return super().write(data)
        except OSError as error:
            self._is_lost = True
            raise OutputLost(error) from error


class _StandardError(io.FileIO):
    """Discards what can't be written."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def open_standard_streams() -> None:
    """Replaces `sys.stdout` and `sys.stderr`. No file that is opened later can become one of the standard streams."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free descriptor is this one. Reading finds nothing, and writing to standard output fails.
            os.open(os.devnull, os.O_WRONLY if descriptor == 2 else os.O_RDONLY)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115  # Until the process ends.
    # A character that the terminal cannot show must not be an error.
    register_fallback()
    output = _StandardOutput(1, "wb", closefd=False)
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(output),
        terminal_encoding(sys.stdout),
        errors=ERROR_HANDLER,
        line_buffering=output.isatty(),
    )
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(_StandardError(2, "wb", closefd=False)),
        terminal_encoding(sys.stderr),
        errors=ERROR_HANDLER,
        line_buffering=True,
    )


async def write_audio(data: bytes) -> None:
    """Writes bytes to standard output as its reader takes them. Can be cancelled also if the reader takes none."""
    for start in range(0, len(data), PIPE_BUFFER_BYTES):
        await _wait_until_writable()
        sys.stdout.buffer.write(data[start : start + PIPE_BUFFER_BYTES])
        sys.stdout.buffer.flush()


async def _wait_until_writable() -> None:
    import asyncio  # Not for --help.

    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    try:
        loop.add_writer(sys.stdout.fileno(), ready.set)
    except OSError:
        return  # A regular file is always ready.
    try:
        await ready.wait()
    finally:
        loop.remove_writer(sys.stdout.fileno())
