"""What is known of a cluster: its nodes, and the actors of a deployment."""

from __future__ import annotations

from dataclasses import dataclass

HEAD_RESOURCE = "node:__internal_head__"
"""The resource that Ray gives the head node alone."""

POLL_SECONDS = 0.25
"""How often a cluster is asked for what Ray tells nobody by itself."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node that is alive."""

    id: str
    ip: str
    gpus: float
    is_head: bool


@dataclass(frozen=True, slots=True)
class ActorStatus:
    """An actor and its server."""

    name: str
    state: str
    """serving; not_serving; starting, also while Ray starts it again; waiting, for a node with the resources."""
    address: str = ""
    node: str = ""
    """The IP address; empty while it has none."""
    pid: int = 0
    """Of the server."""
    restarts: int = 0
    """How often Ray has started the actor again."""
    problem: str = ""
    fingerprint: str = ""
    """Of the spec that it was created with."""
    is_final: bool = False
    """Whether it stays like this until its settings change."""
