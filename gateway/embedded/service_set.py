"""The services that a command starts in its own process if no server is running."""

from __future__ import annotations

from typing import Literal

ServiceName = Literal["storage", "export", "generation", "gateway"]
ServiceSet = tuple[ServiceName, ...]

ALL: ServiceSet = ("storage", "export", "generation", "gateway")
"""For generating music. A service comes after those that it calls."""
DATABASE: ServiceSet = ("storage", "gateway")
"""For reading what the database holds."""
LIBRARY: ServiceSet = ("storage", "export", "gateway")
"""For reading the database and the audio files."""
MODELS: ServiceSet = ("generation", "gateway")
"""For inspecting models. Without storage, generation claims no job, which would be cut off when the command ends."""
NONE: ServiceSet = ()
"""For a command that is of use only with a server that is running."""
