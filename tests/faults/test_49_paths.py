"""No text from a request, from a server's answer or from a file of this program decides which file is opened, written
or deleted. What export does with its own folder is in test_17."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from dgx_music import Client
from dgx_music.channel import connect
from dgx_music.errors import DataLoss
from dgx_music.export.v1 import export_pb2
from dgx_music.export.v1.export_pb2 import DownloadResponse
from dgx_music.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from dgx_music.generation.v1 import generation_pb2
from dgx_music.storage.v1 import storage_pb2
from gateway.embedded.ownership import acquire_or_join
from tests.support.command_line import InProcessShell
from tests.support.embedded_services import embedded_services

ID = "3f0e4a52-6f5e-4e40-9a58-1f6d0a5b7c11"
MARK = "canary-49"
SERVICES = [
    module.DESCRIPTOR.services_by_name[name]
    for module, name in (
        (gateway_pb2, "MusicService"),
        (storage_pb2, "StorageService"),
        (export_pb2, "ExportService"),
        (generation_pb2, "GenerationService"),
    )
]
VALID = {"duration_seconds": 0.1, "sample_rate_hz": 32000, "channels": 2, "model_name": "sketch", "prompt": "house"}
FILE_EVENTS = ("open", "os.", "shutil.", "glob.", "tempfile.", "sqlite3.connect", "subprocess.Popen")
MAX_DEPTH = 3


class _Recorder:
    """Keeps which files this process touches by a name with the mark in it. An audit hook can't be removed."""

    def __init__(self) -> None:
        self.is_on = False
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.is_on and event.startswith(FILE_EVENTS) and MARK in repr(arguments):
            self.seen.append(f"{event}{arguments!r}"[:300])

    @contextmanager
    def recording(self) -> Iterator[list[str]]:
        self.seen, self.is_on = [], True
        try:
            with ExitStack() as stack:
                for name in ("stat", "lstat", "access"):  # Python audits the others, but not these.
                    stack.enter_context(mock.patch.object(os, name, self._recorded(name, getattr(os, name))))
                yield self.seen
        finally:
            self.is_on = False

    def _recorded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self._hook(f"os.{name}", arguments)
            return function(*arguments, **options)

        return call


RECORDER = _Recorder()


@pytest.fixture
def shell(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> InProcessShell:
    return InProcessShell(tmp_path / "data", capfd)


def texts(descriptor: Descriptor, depth: int = MAX_DEPTH) -> Iterator[tuple[FieldDescriptor, ...]]:
    """Yields the way to each field of text in a message."""
    for field in descriptor.fields:
        if field.type == FieldDescriptor.TYPE_STRING:
            yield (field,)
        elif field.message_type is not None and depth > 1:
            for rest in texts(field.message_type, depth - 1):
                yield (field, *rest)


def request_with(descriptor: Descriptor, way: tuple[FieldDescriptor, ...], text: str, known_id: str) -> Message:
    """A request that is valid as far as it is easily made so, with the text in one field."""
    request = GetMessageClass(descriptor)()
    for name, value in VALID.items():
        if name in descriptor.fields_by_name:
            setattr(request, name, value)
    for name in ("id", "generation_id"):
        if name in descriptor.fields_by_name:
            setattr(request, name, known_id)
    *folders, last = way
    message: Any = request
    for field in folders:
        inner = getattr(message, field.name)
        if field.message_type.GetOptions().map_entry:
            key_is_text = last.name == "key"
            if field.message_type.fields_by_name["value"].type == FieldDescriptor.TYPE_STRING:
                inner[text if key_is_text else "name"] = "value" if key_is_text else text
            return request
        message = inner.add() if field.is_repeated else inner
    if last.is_repeated:
        getattr(message, last.name).append(text)
    else:
        setattr(message, last.name, text)
    return request


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"../../{MARK}", id="up"),
        pytest.param(f"/tmp/{MARK}/x.wav", id="absolute", marks=pytest.mark.slow),
        pytest.param("é" + MARK * 32, id="300 bytes", marks=pytest.mark.slow),
    ],
)
async def test_no_text_of_a_request_reaches_the_file_system(tmp_path: Path, text: str) -> None:
    async with embedded_services(tmp_path) as services, connect(services.address) as channel:
        made = await services.music.CreateGeneration(storage_pb2.CreateGenerationRequest(**VALID), timeout=60)
        watch = storage_pb2.WatchGenerationRequest(id=made.generation.id)
        states = [one.generation.state async for one in services.music.WatchGeneration(watch, timeout=60)]
        assert states[-1] == storage_pb2.GENERATION_STATE_COMPLETED
        codes = Counter[grpc.StatusCode]()
        with RECORDER.recording() as seen:
            for service in SERVICES:
                for method in service.methods:
                    if method.name in ("DeleteGeneration", "DeleteFile"):
                        continue
                    serialize = GetMessageClass(method.input_type).SerializeToString
                    answer = GetMessageClass(method.output_type).FromString
                    arguments = f"/{service.full_name}/{method.name}", serialize, answer
                    for way in texts(method.input_type):
                        request = request_with(method.input_type, way, text, made.generation.id)
                        codes[await _call(channel, method, arguments, request)] += 1
        assert codes[grpc.StatusCode.INVALID_ARGUMENT] > 50
        assert codes[grpc.StatusCode.OK] > 5
        assert seen == []
    assert [path for path in tmp_path.rglob("*") if MARK in path.name] == []


async def _call(channel: Any, method: Any, arguments: Any, request: Message) -> grpc.StatusCode:
    """Calls a method, and ends a stream after its first answer."""
    streams = method.client_streaming, method.server_streaming
    requests = iter([request]) if method.client_streaming else request
    match streams:
        case False, False:
            call = channel.unary_unary(*arguments)(requests, timeout=2)
        case True, False:
            call = channel.stream_unary(*arguments)(requests, timeout=2)
        case False, True:
            call = channel.unary_stream(*arguments)(requests, timeout=2)
        case _:
            call = channel.stream_stream(*arguments)(requests, timeout=2)
    try:
        if method.server_streaming:
            await call.read()
            call.cancel()
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


class LyingGateway(gateway_pb2_grpc.MusicServiceServicer):
    """Answers with the file names that the test wants."""

    name = path = address = ""

    def Download(self, request: Any, context: Any) -> Iterator[DownloadResponse]:
        if request.manifest:
            context.abort(grpc.StatusCode.NOT_FOUND, "there is none")
        yield DownloadResponse(file_name=self.name, file_size_bytes=4, data=b"evil")

    def GetGeneration(self, request: Any, context: Any) -> storage_pb2.GetGenerationResponse:
        state = storage_pb2.GENERATION_STATE_COMPLETED
        return storage_pb2.GetGenerationResponse(
            generation=storage_pb2.Generation(id=ID, state=state, file_path=self.path)
        )


@pytest.fixture
def lying() -> Iterator[LyingGateway]:
    gateway = LyingGateway()
    with ThreadPoolExecutor(4) as threads:
        server = grpc.server(threads)
        gateway_pb2_grpc.add_MusicServiceServicer_to_server(gateway, server)
        gateway.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        yield gateway
        server.stop(None).wait()


NAMES = ["song.wav", ".bashrc", "Makefile", "../song.wav", "..", "", f"{ID}/../song.wav", f"{ID}.wav\n", "x" * 300]


def test_server_does_not_choose_which_file_a_download_replaces(
    shell: InProcessShell, lying: LyingGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for name in ("song.wav", ".bashrc", "Makefile"):
        (home / name).write_text("mine")
        (tmp_path / name).write_text("mine")
    monkeypatch.chdir(home)
    with Client(lying.address) as client:
        generation = client.get(ID)
        for lying.name in NAMES:
            error = shell.error("download", ID, "--force", status=1, DGX_MUSIC_GATEWAY_ADDRESS=lying.address)
            assert "must be an id and an extension" in error
            with pytest.raises(DataLoss, match="must be an id and an extension"):
                generation.save(home)
        lying.name = f"{ID}.wav"
        shell.run("download", ID, DGX_MUSIC_GATEWAY_ADDRESS=lying.address)
    found = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    expected = {
        folder / name: "mine" for folder in (Path(), Path("home")) for name in ("song.wav", ".bashrc", "Makefile")
    }
    assert found == expected | {Path("home", f"{ID}.wav"): "evil"}


def test_server_does_not_choose_which_local_file_is_shown_or_opened(
    shell: InProcessShell, lying: LyingGateway, tmp_path: Path
) -> None:
    shell.data_dir.mkdir()
    for path in (tmp_path / "outside.wav", shell.data_dir / "run.desktop", shell.data_dir / "song.wav"):
        path.write_text("mine")
    shown = {}
    for lying.path in ("../outside.wav", str(tmp_path / "outside.wav"), "run.desktop", "song.wav"):
        done = shell.run("show", ID, DGX_MUSIC_GATEWAY_ADDRESS=lying.address)
        (shown[lying.path],) = [line for line in done.stdout.splitlines() if line.split()[:1] == ["file"]]
    is_local = {path: "(on the server)" not in "".join(line.split("\n")) for path, line in shown.items()}
    assert is_local == dict.fromkeys(shown, False) | {"song.wav": True}


@pytest.mark.parametrize("victim", ["notes.txt", "dgx-music-notes/notes.txt"])
def test_record_of_an_owner_that_was_killed_names_no_file_to_delete(tmp_path: Path, victim: str) -> None:
    path = tmp_path / victim
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    run_folder = tmp_path / "data" / "run"
    run_folder.mkdir(parents=True)
    (run_folder / "owner.lock").write_text(json.dumps({"pid": 1, "socket": str(path), "lasting": True}))
    acquire_or_join(tmp_path / "data").release()
    assert path.read_text() == "mine"


@pytest.mark.parametrize("name", ["../../../../notes.txt", "{folder}/notes.txt", "link"])
def test_record_of_a_download_names_no_file_to_delete(
    shell: InProcessShell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    constants = pytest.importorskip("huggingface_hub.constants", reason="it downloads the models")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    notes, repository = tmp_path / "notes.txt", tmp_path / "hub" / "models--facebook--musicgen-small"
    notes.write_text("mine")
    snapshot = repository / "snapshots" / "commit"
    snapshot.mkdir(parents=True)
    (snapshot / "link").symlink_to(notes)
    record = repository / "pulled-by-dgx-music.json"
    record.write_text(json.dumps({"commit": [name.format(folder=tmp_path)]}))
    if name == "link":
        shell.run("models", "remove", "musicgen-small", "--yes")
    else:
        error = shell.error("models", "remove", "musicgen-small", "--yes", status=1)
        assert "names files outside its folder" in error
    assert notes.read_text() == "mine"
