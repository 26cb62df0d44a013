"""Fault 42: what others have written into a library reaches no terminal as control characters, whichever command shows
it, and no log, metric, header or file name."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import text

from storage_service.config import StorageSettings
from storage_service.db.database import Database
from tests.support.command_line import InProcessShell
from tests.support.database_commands import completed
from tests.support.metric_pages import read_families
from tests.support.observed_services import read_page
from tests.support.processes import free_ports
from tests.support.service_processes import service_processes
from tests.support.terminals import DRAWING, on_terminal

CORPUS = (
    "\x1b[31mred\x1b[2J\x1b[H",
    "\x1b]0;title\x07\x1b]52;c;cm0gLXJm\x1b\\",
    "\x1b]8;;http://evil.invalid\x1b\\link\x1b]8;;\x1b\\",
    "\x9b31mC1\x9b2J\x9dtitle\x9c\x90q\x9c",
    "\x1bP1$r\x1b\\\x1b(0lqk\x1bc",
    "over\rwritten\b\b\b\x7f\x0b\x0c\x00"[:-1],
    "\u202egpj.wav\u202c \u2066x\u2069\u200f\u061c",
    "[bold red]markup[/] [link=http://evil.invalid]x[/link] :smile:",
    "two\nlines\u2028three\x85four",
    "日本 \U0001f3b5 e\u0301",
)
LIST = "history"


def require_harmless(output: str) -> None:
    found = {character for character in output if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    assert found <= {"\n", "\u200d"}, found


@pytest.fixture
def library(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> tuple[InProcessShell, dict[str, str]]:
    """A library in which everything that a client or a model can write is from the corpus, and a generation of each
    state."""
    shell = InProcessShell(tmp_path / "data", capfd)
    shell.run("db", "init")
    evil = " ".join(CORPUS)
    ids = {state: completed(shell.data_dir) for state in ("completed", "failed", "pending", "gone")}
    (shell.data_dir / f"outputs/2026/01/01/{ids['gone']}.wav").unlink()
    changes = {
        "completed": "",
        "gone": "",
        "failed": ", status = 'failed', error_message = :evil",
        "pending": ", status = 'pending', error_message = :evil, completed_at = NULL, started_at = NULL, progress = 0",
    }
    metadata = json.dumps(dict.fromkeys(("license", "genre", "key", "not_measured", "normalization_reason"), evil))
    url = StorageSettings(data_dir=shell.data_dir).resolved_database_url()
    with Database(url) as database, database.write() as session:
        for state, change in changes.items():
            session.execute(
                text(
                    "UPDATE generations SET prompt = :evil, model_name = :name, model_version = :name, "
                    f"metadata = json_patch(metadata, :metadata){change} WHERE id = :id"
                ),
                {"evil": evil + state, "name": evil[:40], "metadata": metadata, "id": ids[state]},
            )
        session.execute(text("UPDATE prompts SET text = :evil"), {"evil": evil})
    return shell, ids


COMMANDS = [
    (LIST, 0),
    (f"{LIST} --json", 0),
    ("show completed", 0),
    ("show failed", 0),
    ("prompts", 0),
    ("stats", 0),
    ("files list", 0),
    ("files verify gone", 1),
    ("files cleanup --missing", 0),
    ("files export --all --to FOLDER", 1),
    ("watch failed", 1),
    ("watch failed --json", 1),
    ("retry completed", 1),
    ("db check", 1),
]


@pytest.mark.slow
def test_no_command_prints_control_characters(library: tuple[InProcessShell, dict[str, str]], tmp_path: Path) -> None:
    shell, ids = library
    shown = ""
    with shell.serving_in_process():
        for line, status in COMMANDS:
            words = [ids.get(word, word).replace("FOLDER", str(tmp_path / "export")) for word in line.split()]
            done = shell.run(*words, status=status)
            require_harmless(done.stdout + done.stderr)
            shown += done.stdout + done.stderr
    assert "�[31mred" in shown
    assert "[bold red]markup[/]" in shown
    assert "日本 \U0001f3b5" in shown
    files = [path.name for path in (tmp_path / "export").iterdir()]
    require_harmless("".join(files))


def test_no_argument_comes_back_as_control_characters(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    evil = " ".join(CORPUS)
    shell = InProcessShell(tmp_path / "data", capfd)
    for words in (
        (evil,),
        (LIST, "--state", evil),
        ("show", evil),
        ("generate", "x", "--seed", evil),
        ("generate", evil, "--model", str(tmp_path / evil.replace("/", "_")[:60])),
        ("files", "import", evil),
        ("config", "set", evil, "x"),
        ("config", "set", "log_level", evil),
        ("db", "restore", evil),
    ):
        for more in ((), ("--json",)):
            done = shell.run(*words, *more, status=2)
            assert done.stderr
            require_harmless(done.stdout + done.stderr)
    require_harmless(shell.run(LIST, status=2, DGX_MUSIC_GATEWAY_ADDRESS=evil, DGX_MUSIC_LISTEN="x" + evil).stderr)
    missing = shell.run(LIST, "--debug", status=2, DGX_MUSIC_CONFIG=str(tmp_path / evil)).stderr
    require_harmless(missing)
    assert "Traceback" in missing


def test_a_real_terminal_gets_only_colours(library: tuple[InProcessShell, dict[str, str]]) -> None:
    shell, ids = library
    screen = on_terminal("--data-dir", shell.data_dir, "show", ids["failed"], columns=40)
    require_harmless(DRAWING.sub("", screen.raw.decode()).replace("\r\n", "\n"))
    assert re.search(rb"\x1b\[[0-9;]*m", screen.raw)


NAMES = (b"caf\xe9", b"\x9b31m\x9d", b"\xe2\x80\xae", b"a\tb", b"x" * 300)
"""Of a client, as bytes of a header."""


@pytest.mark.slow
async def test_no_log_header_metric_or_file_name_has_control_characters(tmp_path: Path) -> None:
    # A prompt keeps what is no control character: the direction of text, and markup.
    prompt = "".join(character for character in " ".join(CORPUS) if unicodedata.category(character) != "Cc")
    port = free_ports(1)[0]
    async with service_processes(tmp_path / "data", "storage", "export", "generation") as services:
        await services.start("gateway", DGX_MUSIC_METRICS_PORT=str(port))
        _, url = await services.start_http()
        async with httpx2.AsyncClient(base_url=url, timeout=60) as http:
            for name in NAMES:
                headers = [(b"dgx-music-client", name)]
                body = {"input": prompt, "instructions": prompt, "duration_seconds": 0.1, "response_format": "flac"}
                answer = await http.post("/v1/audio/speech", json=body, headers=headers)
                assert answer.status_code == 200, answer.text
                assert all(value.isascii() and value.isprintable() for value in answer.headers.values())
                refused = await http.post("/v1/audio/speech", json=body | {"model": prompt}, headers=headers)
                assert refused.status_code == 404, refused.text
            events = await http.post("/v1/audio/speech", json=body | {"stream_format": "sse", "response_format": "pcm"})
            assert {line.partition(":")[0] for line in events.text.splitlines()} == {"data", ""}
        page = read_page(port)
        assert "grpc_server_handled_total" in read_families(page)
        require_harmless(page)
        for process in services.running.values():
            require_harmless(process.log())
            assert "http_request_failed" not in process.log()
        names = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")]
        assert all(name.isascii() and name.isprintable() for name in names)
