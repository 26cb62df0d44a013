# ruff: noqa: E402
"""Models that can't be used are each refused with a reason of their own, and the server goes on."""

from __future__ import annotations

import json
import os
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("transformers", reason="one of the layouts is transformers'")

from dgx_music.channel import connect
from dgx_music.error_status import read_error_details
from dgx_music.generation.v1 import generation_pb2 as pb
from dgx_music.generation.v1 import generation_pb2_grpc
from generation_service.config import GenerationSettings
from generation_service.rpc.server import build
from service_runtime.rpc.server import serve_services
from tests.support.checkpoints import write_checkpoint, write_lm_with_config
from tests.support.transformers_checkpoints import write_transformers_checkpoint


class Malicious:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch executed",)


def truncate(folder: Path) -> None:
    file = folder / "model.safetensors"
    os.truncate(file, file.stat().st_size // 2)


def swap(folder: Path) -> None:
    lm, codec = folder / "state_dict.bin", folder / "compression_state_dict.bin"
    lm.rename(folder / "x")
    codec.rename(lm)
    (folder / "x").rename(codec)


def change_json(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text())
    change(config)
    file.write_text(json.dumps(config))


def promise_100_gb(folder: Path) -> None:
    header = json.dumps({"x": {"dtype": "F32", "shape": [25 * 10**9], "data_offsets": [0, 10**11]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)


BAD: dict[str, tuple[str, Callable[[Path], object], str, str]] = {
    "truncated-pickle": (
        "audiocraft",
        lambda folder: os.truncate(folder / "state_dict.bin", 5000),
        "CHECKPOINT_INVALID",
        "the file is truncated",
    ),
    "truncated-safetensors": ("transformers", truncate, "CHECKPOINT_INVALID", "the file is truncated"),
    "swapped": ("audiocraft", swap, "CHECKPOINT_INVALID", "are the files swapped?"),
    "another-architecture": (
        "transformers",
        lambda folder: change_json(folder, lambda config: config.update(model_type="llama")),
        "CHECKPOINT_INVALID",
        "model_type is 'llama'",
    ),
    "code": (
        "audiocraft",
        lambda folder: torch.save({"best_state": Malicious(), "xp.cfg": ""}, folder / "state_dict.bin"),
        "CHECKPOINT_UNSAFE",
        "reading it would run posix.system",
    ),
    "code-in-the-codec": (
        "audiocraft",
        lambda folder: torch.save(Malicious(), folder / "compression_state_dict.bin"),
        "CHECKPOINT_UNSAFE",
        "compression_state_dict.bin: reading it would run posix.system",
    ),
    "config-of-100-gb": (
        "transformers",
        lambda folder: change_json(folder, lambda config: config["decoder"].update(hidden_size=200_000)),
        "CHECKPOINT_INVALID",
        "its configuration expects [65, 200000]",
    ),
    "file-of-100-gb": ("transformers", promise_100_gb, "CHECKPOINT_INVALID", "its tensors end at 100000000090"),
    "another-vocabulary": (
        "audiocraft",
        lambda folder: write_lm_with_config(folder, lambda config: config["transformer_lm"].update(card=128)),
        "CHECKPOINT_INVALID",
        "emb.0.weight has the shape [65, 64]; its configuration expects [129, 64]",
    ),
    "no-codec": (
        "audiocraft",
        lambda folder: (folder / "compression_state_dict.bin").unlink(),
        "CHECKPOINT_MISSING",
        "compression_state_dict.bin",
    ),
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("originals")
    write_checkpoint(root / "audiocraft")
    write_transformers_checkpoint(root / "transformers")
    return root


@pytest.fixture
def data_dir(originals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    models = tmp_path / "data" / "models"
    for name, (layout, spoil, _, _) in BAD.items():
        spoil(shutil.copytree(originals / layout, models / name))
    shutil.copytree(originals / "transformers", models / "good")
    return tmp_path / "data"


async def test_bad_models_are_refused_one_by_one_and_the_good_one_generates(data_dir: Path, tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/g.sock"
    unreachable = dict.fromkeys(("storage_address", "export_address"), f"{address}.none")
    settings = GenerationSettings(data_dir=data_dir, devices="cpu", grace_seconds=0.2, **unreachable)
    async with serve_services([build(settings)], [address], settings), connect(address) as channel:
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        listed = {model.name: model.problem for model in (await stub.ListModels(pb.ListModelsRequest())).models}
        assert {name for name, problem in listed.items() if not problem} == {"good", "sketch"}
        for name, (_, _, reason, problem) in BAD.items():
            assert problem in listed[name]
            began = time.process_time()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Generate(pb.GenerateRequest(prompt="x", duration_seconds=1, model_name=name)).read()
            assert time.process_time() - began < 1, name
            assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
            assert read_error_details(caught.value).reason == reason, name
            assert problem in (caught.value.details() or "")
        size = 0
        async for response in stub.Generate(pb.GenerateRequest(prompt="x", duration_seconds=0.5, model_name="good")):
            size += len(response.chunk.pcm) if response.HasField("chunk") else 0
        assert size > 0
    assert not (tmp_path / "executed").exists()
