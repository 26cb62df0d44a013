"""Which formats a file may have, by the extension of its name."""

from __future__ import annotations

from pathlib import Path

from gateway.cli.session.command_errors import BAD_INPUT, CommandError
from gateway.cli.session.standard_streams import STANDARD_OUTPUT
from service_runtime.audio.output_options import FileFormat


def _formats(container: str) -> tuple[str, ...]:
    return tuple(name for name in FileFormat.__members__ if name.partition("_")[0] == container)


EXTENSION_FORMATS = {
    ".wav": _formats("WAV"),
    ".wave": _formats("WAV"),
    ".bwf": _formats("WAV"),
    ".flac": _formats("FLAC"),
    ".mp3": _formats("MP3"),
    ".ogg": _formats("OGG"),
    ".oga": _formats("OGG"),
    ".opus": ("OGG_OPUS",),
    ".aiff": _formats("AIFF"),
    ".aif": _formats("AIFF"),
    ".aifc": ("AIFF_FLOAT",),
    ".caf": _formats("CAF"),
    ".w64": _formats("W64"),
    ".m4a": _formats("M4A"),
    ".mp4": _formats("M4A"),
}
"""Extension, in lower case → names of the contract's formats; the first is the default."""


def formats_by_extension(path: Path) -> tuple[str, ...]:
    """Returns the names of the formats that a file of this name may have; empty if it has no extension or is "-".

    Raises CommandError for an extension that names no format which can be written.
    """
    if not path.suffix or path == STANDARD_OUTPUT:
        return ()
    formats = EXTENSION_FORMATS.get(path.suffix.lower())
    if formats is None:
        listed = ", ".join(EXTENSION_FORMATS)
        raise CommandError(f"--output: {path.suffix} names no format that can be written; use {listed}", BAD_INPUT)
    return formats


def default_extension(format_name: str) -> str:
    """Returns the first extension that names the format."""
    return next(extension for extension, names in EXTENSION_FORMATS.items() if format_name in names)


def require_extension_of_file(path: Path, file_name: str, generation_id: str) -> None:
    """Raises CommandError if the finished file `file_name`, which is saved as it is, does not suit the name `path`."""
    named, extension = formats_by_extension(path), Path(file_name).suffix
    if named and not set(named) & set(EXTENSION_FORMATS[extension]):
        raise CommandError(
            f"--output: {path.name} would be a {extension} file under a wrong name; use the extension {extension}, "
            f"or convert it with: dgx-music render {generation_id} --output {path}",
            BAD_INPUT,
        )
