"""Which formats a file may have, by the extension of its name."""

from __future__ import annotations

from pathlib import Path

from dgx_music.audio.v1.audio_pb2 import FileFormat as ContractFormat
from dgx_music.client.generation_options import EXTENSIONS, FORMATS
from gateway.cli.session.command_errors import BAD_INPUT, CommandError
from gateway.cli.session.standard_streams import STANDARD_OUTPUT
from service_runtime.audio.output_options import FileFormat


def _formats(name: str) -> tuple[str, ...]:
    """Returns all formats of the container whose default is the one of this name, or else that one alone."""
    default = ContractFormat.Name(FORMATS[name]).removeprefix("FILE_FORMAT_")
    of_container = tuple(one for one in FileFormat.__members__ if one.partition("_")[0] == default.partition("_")[0])
    return of_container if of_container[0] == default else (default,)


EXTENSION_FORMATS = {extension: _formats(name) for extension, name in EXTENSIONS.items()}
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
