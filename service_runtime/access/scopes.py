"""Which scope each method requires, as the contracts state it."""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf import descriptor_pool

from dgx_music.access.v1 import access_pb2
from service_runtime.access.caller import Scope

HEALTH_SERVICE = "grpc.health.v1.Health"
"""It tells states and nothing else. gRPC's own checks, by which a client chooses among several servers, can show no
token, nor can Kubernetes's probes: a caller without one may make its calls."""
READABLE_SERVICES = (
    HEALTH_SERVICE,
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
)
"""Services that are not ours, whose methods require READ."""


def is_open_to_all(method: str) -> bool:
    """Returns whether a caller who shows no token may call the method wherever tokens are required."""
    return method.startswith(f"/{HEALTH_SERVICE}/")


@cache
def required_scope(method: str) -> Scope:
    """Returns the scope that a method requires: `/package.Service/Method`, which this process has loaded.

    It is the option `required_scope` of `access.proto`; without it, and for an unknown method, only services may call.
    """
    service, _, name = method.removeprefix("/").rpartition("/")
    if service in READABLE_SERVICES:
        return Scope.READ
    try:
        options = descriptor_pool.Default().FindMethodByName(f"{service}.{name}").GetOptions()
    except KeyError:
        return Scope.SERVICE
    option: Any = access_pb2.required_scope  # Its type is that of no extension of a method.
    return Scope(options.Extensions[option] or Scope.SERVICE)
