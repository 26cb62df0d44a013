"""Turns the rows of a file of prompts into requests, each with a name of its own by which it is found again."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict

from dgx_music.errors import InvalidArgument
from dgx_music.generation.v1.generation_pb2 import Model
from dgx_music.storage.v1.storage_pb2 import CreateGenerationRequest
from gateway.cli.commands.batch.prompt_file import PROMPT, PromptRow, PromptSource, bad_line, read_prompt_file
from gateway.cli.commands.generation.generate_options import GenerateOptions
from gateway.cli.commands.generation.output_flags import Format
from gateway.cli.display.console import Console
from gateway.cli.session.command_errors import BAD_INPUT, CommandError, format_error
from gateway.file_names import collision_key
from gateway.rpc.length_completion import complete_length

MAX_PROBLEMS = 20
"""How many lines with errors are listed."""
MAX_COUNT = 100
"""As for --count."""
NAMESPACE = uuid.UUID("5a1d8f0e-6a55-4f0b-9d51-3f3a5d0f6b1e")
"""Of the request ids: UUIDs of version 5 (RFC 9562)."""


def _parse_bool(text: str) -> bool:
    values = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    return values[text.lower()]


def _parse_number(text: str) -> float:
    """Also takes 1,5, as spreadsheets of many countries write it; 1,000 may mean a thousand, and is no number here."""
    return float(re.sub(r"^([+-]?\d+),(\d{1,2})$", r"\1.\2", text.strip()))


def split_list(text: str) -> tuple[str, ...]:
    """Returns the items of a cell, which | or the ends of lines separate."""
    return tuple(item.strip() for item in re.split(r"[|\n]", text) if item.strip())


COLUMNS: dict[str, tuple[str, Callable[[str], Any], str]] = {
    PROMPT: ("prompt", str, "a text"),
    "duration": ("duration", _parse_number, "a number of seconds"),
    "seed": ("seed", int, "a whole number"),
    "model": ("model", str, "a name"),
    "temperature": ("temperature", _parse_number, "a number"),
    "top-k": ("top_k", int, "a whole number"),
    "top-p": ("top_p", _parse_number, "a number"),
    "guidance": ("guidance", _parse_number, "a number"),
    "continue": ("continue_", str, "an id"),
    "continue-seconds": ("continue_seconds", _parse_number, "a number of seconds"),
    "negative": ("negative", str, "a text"),
    "also": ("also", split_list, "texts, each with :WEIGHT, separated by |"),
    "section": ("sections", split_list, 'parts such as "0:8 calm piano | 8:16 drums"'),
    "melody": ("melody", str, "an id"),
    "melody-start": ("melody_start", _parse_number, "a number of seconds"),
    "style": ("style", str, "an id"),
    "style-start": ("style_start", _parse_number, "a number of seconds"),
    "text-guidance": ("text_guidance", _parse_number, "a number"),
    "adapter": ("adapters", split_list, "names, each with :SCALE, separated by |"),
    "lyrics": ("lyrics", str, "a text"),
    "steps": ("steps", int, "a whole number"),
    "loop": ("loop", str, "a number of bars"),
    "tempo": ("tempo", _parse_number, "a number of beats per minute"),
    "beats": ("beats", int, "a whole number"),
    "format": ("format", Format, f"one of {', '.join(Format)}"),
    "bitrate": ("bitrate", int, "a whole number"),
    "quality": ("quality", _parse_number, "a number"),
    "sample-rate": ("sample_rate", int, "a whole number"),
    "channels": ("channels", int, "1 or 2"),
    "loudness": ("loudness", str, "a profile or a number"),
    "ceiling": ("ceiling", _parse_number, "a number"),
    "tag-prompt": ("tag_prompt", _parse_bool, "true or false"),
    "title": ("title", str, "a text"),
    "artist": ("artist", str, "a text"),
    "album": ("album", str, "a text"),
    "output": ("output", Path, "a path"),
    "priority": ("priority", int, "a whole number"),
    "count": ("count", int, "a whole number"),
}
"""Column → the field of GenerateOptions, how its text is read, and what it must be."""


@dataclass(slots=True)
class BatchJob:
    """One generation that the file asks for."""

    line: int
    options: GenerateOptions
    given: frozenset[str]
    """The columns that the line itself has."""
    output: Path | None
    """Where its line says that the file is to be saved."""
    request: CreateGenerationRequest = field(default_factory=CreateGenerationRequest)
    key: str = ""
    """Names the job: the file, what the line says, and how many lines before it say the same."""

    def request_id(self, attempt: int) -> str:
        """Returns the request id for creating it, a new one for each attempt that was cancelled before."""
        return str(uuid.uuid5(NAMESPACE, f"{self.key}/{attempt}"))


def read_jobs(
    console: Console, common: GenerateOptions, path: str, output_dir: Path | None
) -> tuple[PromptSource, list[BatchJob]]:
    """Reads the file. `common` are the options that hold for every line that does not give its own.

    Raises CommandError if a line is not valid, after printing what is wrong with the others.
    """
    source = read_prompt_file(path, frozenset(COLUMNS))
    problems = _Problems(console, source.name)
    jobs: list[BatchJob] = []
    for row in source.rows:
        with problems.collected(row.line, row.values):
            jobs += _read_row(row, common, output_dir)
    _check_outputs(problems, jobs)
    problems.raise_if_any()
    return source, jobs


def complete_jobs(
    console: Console, source: PromptSource, jobs: Iterable[BatchJob], models: Iterable[Model], run_name: str
) -> None:
    """Builds the request of each job, for the server's models. Raises CommandError like `read_jobs`."""
    from storage_service.rpc.converters import new_generation_from_proto  # What storage itself checks requests with.

    by_name = {model.name: model for model in models}
    default = next((model.name for model in by_name.values() if model.is_default), "")
    seen: Counter[str] = Counter()
    problems = _Problems(console, source.name)
    for job in jobs:
        with problems.collected(job.line, job.given):
            request = job.request
            request.model_name = request.model_name or default
            model = _require_model(by_name, request.model_name)
            checked = CreateGenerationRequest(sample_rate_hz=model.sample_rate_hz, channels=model.channels)
            complete_length(request, model)
            checked.MergeFrom(request)
            new_generation_from_proto(checked).check()
            body = json.dumps([run_name, source.identity, MessageToDict(request)], sort_keys=True)
            seen[body] += 1
            job.key = hashlib.sha256(f"{body}/{seen[body]}".encode()).hexdigest()
    problems.raise_if_any()


def _read_row(row: PromptRow, common: GenerateOptions, output_dir: Path | None) -> Iterator[BatchJob]:
    fields: dict[str, Any] = {}
    for column, text in row.values.items():
        name, parse, kind = COLUMNS[column]
        try:
            fields[name] = parse(text.strip() if parse is not str else text)
        except (ValueError, KeyError) as error:
            raise InvalidArgument(column, f"must be {kind}, not {text!r}") from error
    options = replace(common, **fields)
    if not options.prompt.strip():
        raise InvalidArgument("prompt", "must not be empty")
    if not 1 <= options.count <= MAX_COUNT:
        raise InvalidArgument("count", f"must be 1 to {MAX_COUNT}, not {options.count}")
    if options.output is not None and options.count > 1:
        raise InvalidArgument("output", "can't take several files; leave out count, or use --output-dir alone")
    output = None if options.output is None else ((output_dir or Path()) / options.output.expanduser()).absolute()
    for request in options.build_requests(_read_sources(options)):
        yield BatchJob(row.line, options, frozenset(row.values), output, request)


def _read_sources(options: GenerateOptions) -> dict[str, str]:
    ids = {}
    for option, source in options.parse_sources().items():
        if isinstance(source, Path):
            raise InvalidArgument(
                option.removeprefix("--"), "must be an id; for a file, first run: dgx-music files import FILE"
            )
        ids[option] = source
    return ids


def _require_model(by_name: Mapping[str, Model], name: str) -> Model:
    model = by_name.get(name)
    if model is None:
        raise InvalidArgument("model_name", f"there is no model {name!r}; the models are {', '.join(sorted(by_name))}")
    if model.problem:
        raise InvalidArgument("model_name", f"{name} can't be used: {model.problem}")
    return model


def _check_outputs(problems: _Problems, jobs: Iterable[BatchJob]) -> None:
    lines: dict[str, int] = {}
    for job in jobs:
        if job.output is None:
            continue
        with problems.collected(job.line, job.given):
            earlier = lines.setdefault(collision_key(str(job.output)), job.line)
            if earlier != job.line:
                raise InvalidArgument("output", f"is the same as in line {earlier}; give each line its own")
            if job.output.exists() and not job.output.is_file():
                raise InvalidArgument("output", f"{job.output} is not a regular file")


class _Problems:
    """Collects what is wrong with each line, so that all of it can be corrected at once."""

    def __init__(self, console: Console, file_name: str) -> None:
        self._console = console
        self._file_name = file_name
        self._found: list[CommandError] = []

    def collected(self, line: int, given: Iterable[str]) -> _Collector:
        """Returns a context that keeps an error of its block, told by the names of the columns that are `given`."""
        return _Collector(self, line, frozenset(given))

    def add(self, line: int, text: str) -> None:
        """Adds one."""
        self._found.append(bad_line(self._file_name, line, text))

    def raise_if_any(self) -> None:
        """Prints all but the last, and raises that."""
        if not self._found:
            return
        shown = self._found[:MAX_PROBLEMS]
        for problem in shown[:-1]:
            self._console.print_error(problem)
        more = len(self._found) - len(shown)
        rest = f"; {more} more lines have errors" if more else ""
        raise CommandError(f"{shown[-1]}{rest}; nothing was queued", BAD_INPUT)


class _Collector:
    def __init__(self, problems: _Problems, line: int, given: frozenset[str]) -> None:
        self._problems = problems
        self._line = line
        self._given = given

    def __enter__(self) -> None:
        """Has nothing to prepare."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, InvalidArgument | CommandError):
            return False
        text = re.sub(r"^PROMPT(?=:)", PROMPT, format_error(error)[0])
        option = re.match(r"--([a-z-]+)(?=:)", text)
        # An option of the command line keeps its dashes; a column has none.
        self._problems.add(self._line, text[2:] if option and option[1] in self._given else text)
        return True
