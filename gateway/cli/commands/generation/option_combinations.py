"""Which options of `generate` exclude each other."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.cli.session.command_errors import BAD_INPUT, CommandError

ONE_STREAM = "standard output takes one piece of audio and nothing else"
NOT_FINISHED = "it exits before the file is finished"

EXCLUDED = {
    "--file": (
        ("PROMPT", "--output", "--cover", "--detach", "--play", "--stdout", "--open"),
        "the file has the prompts, and --output-dir gets the files",
    ),
    "--detach": (("--output", "--cover", "--play", "--stdout", "--open"), NOT_FINISHED),
    "--stdout": (("--json", "--count", "--play", "--output -"), ONE_STREAM),
}
"""Option → the options that can't be given with it, and why."""
REQUIRED = {"--output-dir": "--file", "--name": "--output-dir", "--run": "--file", "--raw": "--stdout"}
"""Option → the option without which it has no use."""
HINTS = {
    ("--detach", "--cover"): "add the cover later with: dgx-music files tag ID --cover IMAGE",
    ("--detach", "--output"): "save the file later with: dgx-music download ID -o FILE",
}


def check_combinations(is_given: Mapping[str, bool]) -> None:
    """Raises CommandError if two of the options that are given can't be combined, or one needs another."""
    for option, (others, reason) in EXCLUDED.items():
        for other in others:
            if is_given.get(option) and is_given.get(other):
                hint = HINTS.get((option, other))
                raise CommandError(
                    f"{option}: {reason}, so it cannot be combined with {other}" + (f"; {hint}" if hint else ""),
                    BAD_INPUT,
                )
    for option, needed in REQUIRED.items():
        if is_given.get(option) and not is_given.get(needed):
            raise CommandError(f"{option}: can only be used together with {needed}", BAD_INPUT)
    if not is_given.get("PROMPT", True) and not is_given["--file"]:
        raise CommandError("PROMPT: describe the music, or give a file of many descriptions with --file", BAD_INPUT)
