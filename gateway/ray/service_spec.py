"""What an actor runs, and where."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version

from gateway.embedded.service_set import ServiceName

NODE = "{node}"
"""In the value of a setting: the IP address of the node that the server runs on."""


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """One server. It is pickled to its node, and kept by Ray, which restarts it."""

    name: str
    """The name of the actor, such as "generation-0"."""
    service: ServiceName
    environment: Mapping[str, str] = field(repr=False)
    """Environment variables of the server, of which some may be secret."""
    first_port: int = 0
    """The server listens on the first port from this on that is free; 0: where its settings say."""
    cpus: float = 0.0
    gpus: float = 0.0
    node_resource: str = ""
    """The resource of Ray that only the node has which it has to run on; empty: any node."""
    module: str = "gateway"
    """The module that `serve SERVICE` is given to."""

    def fingerprint(self) -> str:
        """Returns a text that is another one if anything in it, or the version of DGX Music, is."""
        text = json.dumps({**asdict(self), "version": version("dgx-music")}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()
