"""The .proto files: buf accepts them, and the servicers implement every RPC."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor import ServiceDescriptor

from dgx_music.export.v1 import export_pb2
from dgx_music.gateway.v1 import gateway_pb2
from dgx_music.generation.v1 import generation_pb2
from dgx_music.storage.v1 import storage_pb2
from export_service.rpc.servicer import ExportServicer
from gateway.rpc.servicer import MusicServicer
from generation_service.rpc.servicer import GenerationServicer
from storage_service.rpc.servicer import StorageServicer

ROOT = Path(__file__).parents[2]
BUF = Path(sys.executable).with_name("buf")

SERVICERS = [
    (storage_pb2.DESCRIPTOR.services_by_name["StorageService"], StorageServicer),
    (export_pb2.DESCRIPTOR.services_by_name["ExportService"], ExportServicer),
    (generation_pb2.DESCRIPTOR.services_by_name["GenerationService"], GenerationServicer),
    (gateway_pb2.DESCRIPTOR.services_by_name["MusicService"], MusicServicer),
]


@pytest.mark.parametrize("arguments", [["lint"], ["format", "--diff", "--exit-code", "protos"]], ids=lambda a: a[0])
def test_buf_reports_nothing(arguments: list[str]) -> None:
    completed = subprocess.run([BUF, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stdout + completed.stderr


@pytest.mark.parametrize(("contract", "servicer"), SERVICERS, ids=lambda value: getattr(value, "name", ""))
def test_every_rpc_is_implemented(contract: ServiceDescriptor, servicer: type) -> None:
    written = [base for base in servicer.__mro__ if not base.__module__.endswith("_pb2_grpc")]
    missing = [method.name for method in contract.methods if not any(method.name in vars(base) for base in written)]
    assert missing == []
