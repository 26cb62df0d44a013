"""The endings of file names: which formats a file of each name may have."""

from __future__ import annotations

from pathlib import Path

from gateway.cli.session.command_errors import BAD_INPUT, CommandError

STANDARD_OUTPUT = Path("-")
"""The value of --output that stands for it."""

WAV, FLAC = ("WAV_PCM_24", "WAV_PCM_16", "WAV_PCM_32", "WAV_FLOAT"), ("FLAC_24", "FLAC_16")
AIFF = ("AIFF_PCM_24", "AIFF_PCM_16", "AIFF_PCM_32", "AIFF_FLOAT")
CAF = ("CAF_PCM_24", "CAF_PCM_16", "CAF_PCM_32", "CAF_FLOAT")
W64 = ("W64_PCM_24", "W64_PCM_16", "W64_PCM_32", "W64_FLOAT")
OGG, OPUS, MP3, AAC = ("OGG_VORBIS", "OGG_OPUS"), ("OGG_OPUS",), ("MP3",), ("M4A_AAC",)

ENDINGS = {
    ".wav": WAV,
    ".wave": WAV,
    ".bwf": WAV,
    ".flac": FLAC,
    ".mp3": MP3,
    ".ogg": OGG,
    ".oga": OGG,
    ".opus": OPUS,
    ".aiff": AIFF,
    ".aif": AIFF,
    ".aifc": ("AIFF_FLOAT",),
    ".caf": CAF,
    ".w64": W64,
    ".m4a": AAC,
    ".mp4": AAC,
}
"""Ending, in lower case → names of the contract's formats; the first is the default."""


def formats_by_ending(path: Path) -> tuple[str, ...]:
    """Returns the names of the formats that a file of this name may have; empty if it has no ending or is "-".

    Raises CommandError for an ending that names no format which can be written.
    """
    if not path.suffix or path == STANDARD_OUTPUT:
        return ()
    formats = ENDINGS.get(path.suffix.lower())
    if formats is None:
        listed = ", ".join(ENDINGS)
        raise CommandError(f"--output: {path.suffix} names no format that can be written; use {listed}", BAD_INPUT)
    return formats


def default_ending(format_name: str) -> str:
    """Returns the first ending that names the format."""
    return next(ending for ending, names in ENDINGS.items() if format_name in names)


def require_ending_of_file(path: Path, file_name: str, generation_id: str) -> None:
    """Raises CommandError if the finished file `file_name`, which is saved as it is, does not suit the name `path`."""
    named, ending = formats_by_ending(path), Path(file_name).suffix
    if named and not set(named) & set(ENDINGS[ending]):
        raise CommandError(
            f"--output: {path.name} would be a {ending} file under a wrong name; use the ending {ending}, or convert "
            f"it with: dgx-music render {generation_id} --output {path}",
            BAD_INPUT,
        )
