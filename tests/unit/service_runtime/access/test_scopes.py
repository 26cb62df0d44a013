"""Which scope a method requires."""

from __future__ import annotations

import pytest

from dgx_music.gateway.v1 import gateway_pb2
from dgx_music.storage.v1 import storage_pb2
from service_runtime.access.caller import Scope
from service_runtime.access.scopes import required_scope

CONTRACTS = (storage_pb2, gateway_pb2)  # Loaded, as a server that serves them has.


@pytest.mark.parametrize(
    ("method", "scope"),
    [
        ("/dgx_music.storage.v1.StorageService/GetGeneration", Scope.READ),
        ("/dgx_music.gateway.v1.MusicService/CreateGeneration", Scope.GENERATE),
        ("/dgx_music.gateway.v1.MusicService/CreateToken", Scope.ADMIN),
        ("/dgx_music.storage.v1.StorageService/ClaimGeneration", Scope.SERVICE),  # Has no option.
        ("/dgx_music.storage.v1.StorageService/NoSuchMethod", Scope.SERVICE),
        ("/no.such.Service/Method", Scope.SERVICE),
        ("/grpc.health.v1.Health/Watch", Scope.READ),
        ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Scope.READ),
    ],
)
def test_required_scope(method: str, scope: Scope) -> None:
    assert required_scope(method) is scope
