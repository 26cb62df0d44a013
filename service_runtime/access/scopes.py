"""Which scope each method requires, as the contracts state it."""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf import descriptor_pool

from dgx_music.access.v1 import access_pb2
from service_runtime.access.caller import Scope

READABLE_SERVICES = (
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
)
"""Services that are not ours, whose methods require READ."""


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
