"""Clients in other languages, as docs/clients.md describes them: the one in TypeScript is built and run."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest

from dgx_music.audio.v1.audio_pb2 import AUDIO_LEVEL_LIVE
from dgx_music.export.v1 import export_pb2 as export
from dgx_music.storage.v1 import storage_pb2 as storage
from tests.support.embedded_services import EmbeddedServices, embedded_services
from tests.support.npm_packages import installed_packages

ROOT = Path(__file__).parents[3]
CLIENTS = ROOT / "docs/clients"
BIN = Path(sys.executable).parent
TIMEOUT_SECONDS = 120.0


async def run(*command: str | Path, cwd: Path, status: int = 0, **environment: str) -> tuple[str, str]:
    """Returns what the command printed to standard output and to standard error."""
    variables = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", **environment}
    process = await asyncio.create_subprocess_exec(*command, cwd=cwd, env=variables, stdout=-1, stderr=-1)
    out, error = await asyncio.wait_for(process.communicate(), TIMEOUT_SECONDS)
    assert process.returncode == status, (out + error).decode()
    return out.decode(), error.decode()


async def live_samples(services: EmbeddedServices, generation_id: str) -> bytes:
    request = export.StreamAudioRequest(generation_id=generation_id, level=AUDIO_LEVEL_LIVE)
    stream = services.music.StreamAudio(request, timeout=TIMEOUT_SECONDS)
    return b"".join([part.chunk.pcm async for part in stream])


@pytest.mark.slow
async def test_typescript_client_generates_watches_and_listens(tmp_path: Path) -> None:
    packages = await asyncio.to_thread(installed_packages, CLIENTS / "typescript/package.json")
    folder = tmp_path / "typescript"
    shutil.copytree(CLIENTS / "typescript", folder, ignore=shutil.ignore_patterns("node_modules", "gen", "build"))
    (folder / "node_modules").symlink_to(packages)
    await run("npm", "run", "build", cwd=folder, PROTOS=str(ROOT / "protos"))
    async with embedded_services(tmp_path / "data", public_address="127.0.0.1:0") as services:
        variables = {"DGX_MUSIC_GATEWAY_ADDRESS": services.public_address}
        command = ("node", "build/generate.js")

        out, _ = await run(*command, "house at 124 BPM", "8", "house.f32", cwd=folder, **variables)
        [generation] = (
            await services.music.ListGenerations(storage.ListGenerationsRequest(), timeout=TIMEOUT_SECONDS)
        ).generations
        assert "32000 Hz, 2 channels, 256000 frames\n" in out
        assert out.splitlines()[-1] == f"GENERATION_STATE_COMPLETED 1 {generation.file_path}"
        assert (folder / "house.f32").read_bytes() == await live_samples(services, generation.id)

        _, error = await run(*command, "house", "0.01", "house.f32", cwd=folder, status=1, **variables)
        assert error.startswith("error: 3 INVALID_ARGUMENT: duration_seconds: ")


async def test_generators_for_go_get_an_import_path_for_each_contract(tmp_path: Path) -> None:
    generators = ("protoc-gen-go", "protoc-gen-go-grpc")
    for name in generators:  # buf runs a generator once for each folder.
        (tmp_path / name).write_text(f"#!/bin/sh\ncat > \"$(mktemp '{tmp_path}/{name}.request.XXXXXX')\"\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{BIN}{os.pathsep}{os.environ['PATH']}"
    command = ("buf", "generate", "--template", CLIENTS / "go/buf.gen.yaml", ROOT / "protos")
    await run(*command, cwd=tmp_path, PATH=path)

    imported = set(re.findall(r'"(example\.com/[^"]+)"', (CLIENTS / "go/main.go").read_text()))
    for name in generators:
        packages: dict[str, str] = {}
        for path_of_request in tmp_path.glob(f"{name}.request.*"):
            request = CodeGeneratorRequest.FromString(path_of_request.read_bytes())
            assert request.parameter == "paths=source_relative"
            options = {file.name: file.options.go_package for file in request.proto_file}
            packages |= {file: options[file].partition(";")[0] for file in request.file_to_generate}
        assert packages == {file: f"example.com/listen/gen/{Path(file).parent}" for file in packages}
        assert imported <= set(packages.values())


async def test_stubs_for_python_are_generated_by_the_command_of_the_page(tmp_path: Path) -> None:
    [command] = re.findall(r"^python -m grpc_tools.*$", (ROOT / "docs/clients.md").read_text(), re.MULTILINE)
    shutil.copytree(ROOT / "protos", tmp_path / "protos")
    await run("sh", "-c", command, cwd=tmp_path)
    assert (tmp_path / "dgx_music/gateway/v1/gateway_pb2_grpc.py").is_file()
