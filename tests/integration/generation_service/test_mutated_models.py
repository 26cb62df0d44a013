# ruff: noqa: E402
"""Models with one damaged place: each is refused with a reason or generates, and the server goes on.

`python -m tests.integration.generation_service.test_mutated_models 500` tries so many of each kind.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
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
from tests.support.checkpoints import write_t5
from tests.support.mutated_models import TENSORS, mutate_folder
from tests.support.prefix_checkpoints import write_melody_checkpoint
from tests.support.sound_checkpoints import write_magnet
from tests.support.transformers_checkpoints import write_transformers_checkpoint

MUTANTS = 6
"""Of each kind."""
KINDS: dict[str, Callable[[Path], object]] = {
    "magnet": write_magnet,
    "melody": write_melody_checkpoint,
    "transformers": write_transformers_checkpoint,
}


def change_json(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return spoil


def change_tensor(kind: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        package = torch.load(folder / "state_dict.bin", weights_only=True)
        package["best_state"]["out_norm.bias"] = TENSORS[kind](package["best_state"]["out_norm.bias"])
        torch.save(package, folder / "state_dict.bin")

    return spoil


FOUND: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "sparse": ("magnet", change_tensor("sparse"), "does not have the data of its shape"),
    "meta": ("magnet", change_tensor("meta"), "does not have the data of its shape"),
    "repeated": ("magnet", change_tensor("one value"), "does not have the data of its shape"),
    "tokenizer": (
        "transformers",
        change_json("tokenizer_config.json", lambda config: config.update(model_max_length=["x"])),
        "its tokenizer",
    ),
    "folder": (
        "transformers",
        lambda folder: ((folder / "config.json").unlink(), (folder / "config.json").mkdir()),
        "can't be read",
    ),
}
"""Those that got past the first checks once, and failed with an internal error."""


async def try_mutants(root: Path, count: int) -> None:
    write_t5(root / "hf")
    models = root / "data" / "models"
    for kind, write in KINDS.items():
        write(root / kind)
        for seed in range(count):
            mutate_folder(root / kind, models / f"{kind}-{seed}", random.Random(seed))
    for name, (kind, spoil, _) in FOUND.items():
        spoil(shutil.copytree(root / kind, models / name))
    address = f"unix:{root}/g.sock"
    unreachable = dict.fromkeys(("storage_address", "export_address"), f"{address}.none")
    settings = GenerationSettings(data_dir=root / "data", devices="cpu", grace_seconds=0.2, **unreachable)
    async with serve_services([build(settings)], [address], settings), connect(address) as channel:
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        listed = (await stub.ListModels(pb.ListModelsRequest())).models
        refusals = {model.name: await refusal(stub, model.name) for model in listed}
    assert not refusals["sketch"]
    for name, (_, _, problem) in FOUND.items():
        assert problem in refusals[name]
    assert len([name for name, problem in refusals.items() if not problem]) > 1


async def refusal(stub: Any, name: str) -> str:
    """Empty if the model generates."""
    request = pb.GenerateRequest(prompt="x", duration_seconds=0.1, seed=1, model_name=name)
    size = 0
    try:
        async for response in stub.Generate(request, timeout=60):
            size += len(response.chunk.pcm) if response.HasField("chunk") else 0
    except grpc.aio.AioRpcError as error:
        code, reason, problem = error.code(), read_error_details(error).reason, error.details() or ""
    else:
        code, reason, problem = None, "", ""
    assert code == (grpc.StatusCode.FAILED_PRECONDITION if problem else None), (name, code, problem)
    assert bool(reason) == bool(problem) == (size == 0), (name, problem)
    assert len(problem) < 1000
    return problem


@pytest.mark.slow
async def test_each_mutant_is_refused_or_generates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", f"{tmp_path}/hf/hub")
    await try_mutants(tmp_path, MUTANTS)


if __name__ == "__main__":
    import asyncio

    from huggingface_hub import constants

    with tempfile.TemporaryDirectory() as folder:
        constants.HF_HUB_CACHE = f"{folder}/hf/hub"
        asyncio.run(try_mutants(Path(folder), int(sys.argv[1])))
