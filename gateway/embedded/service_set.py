"""Which services a command needs. Those alone are started where no server is up."""

from __future__ import annotations

from typing import Literal

ServiceName = Literal["storage", "export", "generation", "gateway"]
Needs = tuple[ServiceName, ...]

ALL: Needs = ("storage", "export", "generation", "gateway")
"""To make music. In the order of who needs whom."""
DATABASE: Needs = ("storage", "gateway")
"""To look at what there is."""
LIBRARY: Needs = ("storage", "export", "gateway")
"""To get at the files too."""
MODELS: Needs = ("generation", "gateway")
"""To look at the models. Without storage there is no work to claim, that would be cut off soon after."""
