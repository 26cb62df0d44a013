"""The findings of `dgx-music doctor`."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.cli.commands.setup.doctor import EXAMPLE, check_sound, doctor, next_step
from gateway.cli.display.console import Console
from gateway.cli.session.command_errors import FAILURE
from generation_service.models.finding import Finding

INSTALL = f"{shlex.quote(sys.executable)} -m pip install 'dgx-music[musicgen]'"
"""For the Python that runs the tests, which the `pip` on PATH need not belong to."""


def run_doctor(data_dir: Path, capsys: pytest.CaptureFixture[str], *, status: int = 0) -> dict[str, dict[str, str]]:
    """Returns the findings by name."""
    assert doctor(data_dir, Console(as_json=True)) == status
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert report["ok"] == (status == 0)
    return {finding["name"]: finding for finding in report["findings"]}


def test_doctor_without_torch_offers_sketch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    found = run_doctor(tmp_path, capsys)
    assert found["torch"]["state"] == "missing"
    assert found["torch"]["advice"] == INSTALL
    assert found["model"]["found"].startswith("sketch (default)")
    assert "musicgen-small" in found["musicgen"]["advice"]
    assert "created at first use" in found["database"]["found"]
    assert list(tmp_path.iterdir()) == []


def test_unusable_folder_and_full_disk_are_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    found = run_doctor(tmp_path / "file", capsys, status=FAILURE)
    assert "--data-dir" in found["data directory"]["advice"]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**8))
    found = run_doctor(tmp_path, capsys, status=FAILURE)
    assert "0.10 GB free" in found["data directory"]["found"]


@pytest.mark.parametrize("engine", ["native", "audiocraft"])
def test_configured_engine_and_its_requirements_are_reported(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def version(name: str) -> str:
        if name == "audiocraft":
            raise metadata.PackageNotFoundError
        return "1"

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setenv("DGX_MUSIC_ENGINE", engine)
    is_selected = engine == "audiocraft"
    found = run_doctor(tmp_path, capsys, status=FAILURE if is_selected else 0)
    assert found["engine"]["found"].startswith(engine)
    assert found["audiocraft"]["state"] == ("broken" if is_selected else "missing")
    assert "make setup-audiocraft" in found["audiocraft"]["advice"]
    monkeypatch.setattr(metadata, "version", lambda name: "1")
    monkeypatch.setenv("DGX_MUSIC_PRECISION", "int8")
    found = run_doctor(tmp_path, capsys, status=FAILURE if is_selected else 0)
    assert found["audiocraft"]["state"] == "ok"
    assert found["engine"]["state"] == ("broken" if is_selected else "ok")
    assert ("DGX_MUSIC_PRECISION" in found["engine"]["advice"]) == is_selected


OK = [
    Finding("torch", "ok", "2"),
    Finding("services", "ok", "no server runs and no address is configured, so they run within the command"),
]
NO_TORCH = Finding("torch", "missing", "not installed", "pip install 'dgx-music[musicgen]'")
NO_MODEL = Finding("musicgen", "missing", "no model is installed", "run `dgx-music models pull musicgen-small`")


@pytest.mark.parametrize(
    ("findings", "says"),
    [
        (OK, f"{EXAMPLE}; to keep the model loaded in between, run `dgx-music serve` in another terminal"),
        ([OK[0], Finding("server", "ok", "runs")], EXAMPLE),
        ([NO_TORCH, NO_MODEL, OK[1]], "pip install 'dgx-music[musicgen]' for MusicGen, or try the synthesizer"),
        ([OK[0], NO_MODEL, OK[1]], "dgx-music models pull musicgen-small for MusicGen, or try the synthesizer"),
        ([NO_TORCH, NO_MODEL, Finding("gateway", "ok", "responds")], EXAMPLE),
        ([NO_TORCH, Finding("gateway", "broken", "gone", "start it")], "gateway: start it"),
        ([Finding("models", "broken", "they can't be listed")], "see models above"),
    ],
)
def test_report_ends_in_what_to_do_next(findings: list[Finding], says: str) -> None:
    assert next_step(findings).startswith(says)


def test_text_ends_in_the_next_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor(tmp_path, Console()) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("Next: ")


def test_settings_that_are_not_valid_end_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DGX_MUSIC_LOG_LEVEL", "loud")
    found = run_doctor(tmp_path, capsys, status=FAILURE)
    assert list(found) == ["settings"]
    assert found["settings"]["found"].startswith("DGX_MUSIC_LOG_LEVEL=loud: ")


def no_device(kind: str) -> dict[str, str]:
    raise ValueError("No output device")


@pytest.mark.parametrize(
    ("query", "state", "found"),
    [
        (None, "missing", "playing requires the extra play"),
        (no_device, "missing", "there is no sound card (No output device)"),
        (lambda kind: {"name": f"{kind} of a card"}, "ok", "output of a card"),
    ],
)
def test_sound_card_is_described(query: Any, state: str, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    library = None if query is None else SimpleNamespace(query_devices=query, PortAudioError=RuntimeError)
    monkeypatch.setitem(sys.modules, "sounddevice", library)
    sound = check_sound()
    assert (sound.state, sound.found) == (state, found)
    assert bool(sound.advice) == (state == "missing")
