"""What the lines of a file of prompts ask for, and by which request ids they are found again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from dgx_music.generation.v1.generation_pb2 import Model
from gateway.cli.commands.batch.batch_jobs import BatchJob, complete_jobs, read_jobs
from gateway.cli.commands.generation.generate_options import GenerateOptions
from gateway.cli.display.console import Console
from gateway.cli.session.command_errors import CommandError

SOURCE_ID = "1b4e28ba-2fa1-41d2-883f-0016d3cca427"
MODELS = [
    Model(name="sketch", sample_rate_hz=32000, channels=2, max_duration_seconds=60, is_default=True),
    Model(name="broken", problem="weights are missing"),
]


def plan(
    file: Path,
    text: str,
    *,
    run: str = "",
    models: Sequence[Model] = MODELS,
    output_dir: Path | None = None,
    **common: object,
) -> list[BatchJob]:
    file.write_text(text)
    source, jobs = read_jobs(Console(), GenerateOptions(**common), str(file), output_dir)  # type: ignore[arg-type]
    complete_jobs(Console(), source, jobs, models, run)
    return jobs


def request_ids(jobs: Sequence[BatchJob]) -> list[str]:
    return [job.request_id(1) for job in jobs]


def test_columns_come_before_the_options_of_the_command(tmp_path: Path) -> None:
    text = (
        "prompt,duration,seed,top-k,tag-prompt,loudness,format,continue,continue-seconds,title,output\n"
        f"house,2.5,7,5,yes,-14,flac,{SOURCE_ID},3,Night,\n"
        "jazz,,,,,,,,,,a/b.flac\n"
    )
    first, second = plan(tmp_path / "p.csv", text, duration=4.0, priority=3, output_dir=tmp_path)
    assert (first.line, second.line) == (2, 3)
    request = first.request
    assert (request.prompt, request.duration_seconds, request.seed, request.sampling.top_k) == ("house", 2.5, 7, 5)
    assert (request.output.target_lufs, request.output.tag_prompt, request.priority) == (-14, True, 3)
    assert (request.continuation.source_id, request.continuation.seconds) == (SOURCE_ID, 3)
    assert (request.output.publication.title, request.model_name) == ("Night", "sketch")
    assert second.request.duration_seconds == 4.0
    assert second.output == tmp_path / "a/b.flac"


def test_decimal_comma_of_a_spreadsheet_is_no_thousands_separator(tmp_path: Path) -> None:
    (job,) = plan(tmp_path / "p.csv", "prompt;duration;guidance\nhouse;1,5;2,75\n")
    assert (job.request.duration_seconds, job.request.sampling.guidance_scale) == (1.5, 2.75)
    with pytest.raises(CommandError):
        plan(tmp_path / "p.csv", "prompt;duration\nhouse;1,000\n")


def test_count_makes_several_with_consecutive_seeds(tmp_path: Path) -> None:
    jobs = plan(tmp_path / "p.csv", "prompt,count,seed\nhouse,3,5\njazz,,\n")
    assert [(job.request.prompt, job.request.seed) for job in jobs[:3]] == [("house", 5), ("house", 6), ("house", 7)]
    assert len(jobs) == 4


def test_request_ids_stay_when_other_lines_change(tmp_path: Path) -> None:
    file = tmp_path / "p.txt"
    house, jazz, again = request_ids(plan(file, "house\njazz\nhouse\n"))
    assert len({house, jazz, again}) == 3
    assert request_ids(plan(file, "# new\nrock\njazz\nhouse\nhouse\n"))[1:] == [jazz, house, again]


def test_request_ids_change_with_whatever_changes_the_music(tmp_path: Path) -> None:
    file = tmp_path / "p.txt"
    ids = [
        *request_ids(plan(file, "house")),
        *request_ids(plan(file, "house", duration=3.0)),
        *request_ids(plan(file, "house", loudness="-14")),
        *request_ids(plan(file, "house", run="b")),
        *request_ids(plan(tmp_path / "q.txt", "house")),
        plan(file, "house")[0].request_id(2),
    ]
    assert len(set(ids)) == len(ids)
    assert request_ids(plan(file, "house")) == ids[:1]


def test_every_bad_line_is_told_before_anything_is_queued(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (
        "prompt,duration,seed,loudness,model,continue,count,format\n"
        "a,abc,,,,,,\n"
        "b,,1.5,,,,,\n"
        "c,,,loud,,,,\n"
        ",1,,,,,,\n"
        "d,,,,,song.mp3,,\n"
        "e,,,,,,0,\n"
        "f,,,,,,,mp4\n"
        "g,,,,,,,\n"
    )
    with pytest.raises(CommandError) as caught:
        plan(tmp_path / "p.csv", text)
    problems = [*capsys.readouterr().err.splitlines(), str(caught.value)]
    expected = [
        "2: duration: must be a number of seconds, not 'abc'",
        "3: seed: must be a whole number, not '1.5'",
        "4: loudness: 'loud' is not a valid loudness",
        "5: prompt: must not be empty",
        "6: continue: song.mp3 is neither a valid id nor an existing file",
        "7: count: must be 1 to 100, not 0",
        "8: format: must be one of wav, ",
    ]
    assert len(problems) == len(expected)
    for problem, text in zip(problems, expected, strict=True):
        assert f"p.csv:{text}" in problem
    assert problems[-1].endswith("; nothing was queued")


@pytest.mark.parametrize(
    ("columns", "values", "problem"),
    [
        ("duration", "0", "2: duration: must be 0.1 to 3600 s, not 0"),
        ("duration", "61", "2: duration: must be at most 60 s for model sketch"),
        ("seed", "-1", "2: seed: must be 0 to"),
        ("temperature", "nan", "2: temperature: "),
        ("model", "other", "2: model: there is no model 'other'; the models are broken, sketch"),
        ("model", "broken", "2: model: broken can't be used: weights are missing"),
        ("priority", "11", "2: priority: must be -10 to 10"),
        ("sample-rate", "7", "2: sample-rate: "),
        ("channels", "9", "2: channels: "),
        ("seed,count", "9223372036854775807,2", "2: seed: must be at most 9223372036854775806 with --count 2"),
        ("output,count", "a.wav,2", "2: output: can't take several files"),
        ("output", "a.xyz", "2: output: .xyz names no format"),
        ("output", "/dev/null", "2: output: "),
    ],
)
def test_values_are_checked_as_the_server_does(tmp_path: Path, columns: str, values: str, problem: str) -> None:
    with pytest.raises(CommandError) as caught:
        plan(tmp_path / "p.csv", f"prompt,{columns}\nhouse,{values}\n")
    assert f"p.csv:{problem}" in str(caught.value)


def test_option_of_the_command_keeps_its_dashes(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"p\.txt:1: --temperature: "):
        plan(tmp_path / "p.txt", "house", temperature=99.0)
    with pytest.raises(CommandError, match=r"p\.txt:1: prompt: "):
        plan(tmp_path / "p.txt", "a\0b")


def test_two_lines_with_one_output_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"p\.csv:4: output: is the same as in line 2"):
        plan(tmp_path / "p.csv", "prompt,output\na,x.wav\nb,y.wav\nc,X.wav\n", output_dir=tmp_path)


def test_only_the_first_bad_lines_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CommandError, match="; 10 more lines have errors; nothing was queued"):
        plan(tmp_path / "p.csv", "prompt,seed\n" + "a,b\n" * 30)
    assert len(capsys.readouterr().err.splitlines()) == 19
