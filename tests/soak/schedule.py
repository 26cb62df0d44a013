"""What happens in a soak: its jobs and its faults, drawn from a seed, and written to and read from JSON."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

PROMPTS = 20
"""Number of different prompts, so that each is used several times."""
FORMATS = ("WAV_PCM_24", "WAV_PCM_24", "WAV_PCM_16", "FLAC_16", "MP3", "OGG_OPUS", "AIFF_PCM_24", "CAF_FLOAT")
GENRES = ("house", "jazz", "ambient", "rock", "lo-fi")
SHAPES = ("new", "new", "new", "batch", "loop", "extend left", "extend right", "repaint", "continuation", "variation")
"""What a job asks for."""
DEEDS = {
    "repeat": 0.2,
    "listen": 0.4,
    "cancel": 0.12,
    "delete early": 0.06,
    "rate": 0.2,
    "tags": 0.15,
    "render": 0.15,
    "download": 0.3,
    "delete": 0.1,
}
"""What a client does with its job besides → how often."""

SERVICES = ("storage", "export", "generation", "generation-2", "gateway")
LINKS = (
    "client>gateway",
    "gateway>storage",
    "gateway>export",
    "gateway>generation",
    "generation>storage",
    "generation>export",
    "generation-2>storage",
    "generation-2>export",
)
"""Connections, as "caller>callee"."""
FAILPOINTS = {
    "storage": ("storage.before_commit", "storage.after_commit"),
    "export": (
        "export.before_mastering",
        "export.before_fsync",
        "export.after_fsync",
        "export.before_rename",
        "export.after_rename",
        "export.before_render_rename",
        "export.after_render_rename",
        "export.before_edit_rename",
        "export.after_edit_rename",
    ),
    "generation": (
        "generation.before_claim",
        "generation.after_claim",
        "generation.before_chunk",
        "generation.before_end",
        "generation.before_complete",
        "generation.after_complete",
        "generation.before_renewal",
    ),
}
NOT_OF_THE_DISK = "export.before_mastering"
DISK_ERRORS = ("ENOSPC", "EIO", "EDQUOT", "EROFS")
MAX_CLOCK_STEP_SECONDS = {"storage": 10, "export": 3600, "generation": 3600, "generation-2": 3600, "gateway": 3600}
"""Storage's clock decides over leases where its database has none, so that an hour would be waited for."""
KINDS = {
    "kill": 20,
    "failpoint": 22,
    "terminate": 10,
    "pause": 14,
    "cut": 12,
    "hold": 6,
    "slow": 6,
    "lose answers": 8,
    "disk error": 6,
    "disk full": 3,
    "clock": 6,
}
"""Kind of a fault → how often."""
HOST_KINDS = {"kill": 20, "terminate": 8, "pause": 8, "engine": 2}
"""The same for many hosts."""
ENGINES = ("postgres", "s3")
LEASE_SECONDS = 8.0


@dataclass(frozen=True)
class Job:
    """What one client does."""

    number: int
    request_id: str
    prompt: str
    seconds: float
    seed: int
    format: str
    shape: str
    deeds: tuple[str, ...]
    pause_seconds: float
    """Before a cancellation, an early deletion and a second listener."""
    position: float
    """Where in the audio the second listener starts, and where an edit is made, as a share."""
    max_attempts: int
    """0 for the server's."""

    def __str__(self) -> str:
        deeds = ", ".join(self.deeds) or "left alone"
        return f"job {self.number}: {self.shape}, {self.seconds:g} s of {self.format}, {deeds}"


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong, and is mended after some time."""

    before_job: int
    """The number of the job that is created next."""
    kind: str
    target: str
    """A service or a link; empty for a disk."""
    seconds: float
    detail: str = ""
    """The failpoint, or the step of the clock in seconds."""

    def __str__(self) -> str:
        return f"before job {self.before_job}: {self.kind} {self.target} {self.detail} for {self.seconds:g} s"


@dataclass(frozen=True)
class Schedule:
    """A whole soak."""

    seed: int
    jobs: tuple[Job, ...]
    faults: tuple[Fault, ...]

    def only(self, events: Sequence[Job | Fault]) -> Schedule:
        """Returns the schedule of these jobs and faults alone."""
        jobs = tuple(event for event in events if isinstance(event, Job))
        return replace(self, jobs=jobs, faults=tuple(event for event in events if isinstance(event, Fault)))

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Schedule:
        fields = json.loads(path.read_text())
        jobs = tuple(Job(**{**job, "deeds": tuple(job["deeds"])}) for job in fields["jobs"])
        return cls(fields["seed"], jobs, tuple(Fault(**fault) for fault in fields["faults"]))


def draw_schedule(seed: int, jobs: int, faults: int, kinds: Sequence[str] = tuple(KINDS)) -> Schedule:
    """Returns the same schedule for the same arguments, on every machine."""
    dice = random.Random(f"{seed} {jobs} {faults}")
    drawn = [_draw_fault(dice, dice.randrange(jobs), kinds) for _ in range(faults)]
    return Schedule(
        seed,
        tuple(_draw_job(dice, number) for number in range(jobs)),
        tuple(sorted(drawn, key=lambda fault: fault.before_job)),
    )


def draw_host_schedule(
    seed: int, jobs: int, faults: int, names: Sequence[str], engines: Sequence[str] = ENGINES
) -> Schedule:
    """Returns the same schedule for many hosts, whose servers have these names: kills, ends and pauses of any."""
    dice = random.Random(f"{seed} {jobs} {faults} hosts")
    drawn = [_draw_host_fault(dice, dice.randrange(jobs), names, engines) for _ in range(faults)]
    return Schedule(
        seed,
        tuple(_draw_job(dice, number) for number in range(jobs)),
        tuple(sorted(drawn, key=lambda fault: fault.before_job)),
    )


def _draw_job(dice: random.Random, number: int) -> Job:
    take = dice.randrange(PROMPTS)
    return Job(
        number=number,
        request_id=str(uuid.UUID(int=dice.getrandbits(128), version=4)),
        prompt=f"{GENRES[take % len(GENRES)]} at {60 + 5 * take} BPM, take {take}",
        seconds=round(dice.uniform(1, 4), 1),
        seed=dice.randrange(1 << 30),
        format=dice.choice(FORMATS),
        shape=dice.choice(SHAPES),
        deeds=tuple(deed for deed, share in DEEDS.items() if dice.random() < share),
        pause_seconds=round(dice.expovariate(2), 2),
        position=round(dice.random(), 3),
        max_attempts=1 if dice.random() < 0.1 else 0,
    )


def _draw_host_fault(dice: random.Random, before_job: int, names: Sequence[str], engines: Sequence[str]) -> Fault:
    kind = dice.choices(list(HOST_KINDS), list(HOST_KINDS.values()))[0]
    target, seconds = dice.choice(names), round(dice.uniform(0, 4), 2)
    if kind == "engine" and not engines:
        kind = "kill"
    elif kind == "engine":
        target = dice.choice(engines)
    elif kind == "pause":
        seconds = round(dice.uniform(0.5, 1.5 * LEASE_SECONDS), 2)
    return Fault(before_job, kind, target, seconds)


def _draw_fault(dice: random.Random, before_job: int, kinds: Sequence[str]) -> Fault:
    kind = dice.choices(kinds, [KINDS[one] for one in kinds])[0]
    target, detail, seconds = dice.choice(SERVICES), "", round(dice.uniform(0, 2), 2)
    match kind:
        case "pause":
            seconds = round(dice.uniform(0.5, 1.5 * LEASE_SECONDS), 2)
        case "failpoint":
            target = dice.choice((*FAILPOINTS, "generation-2"))
            detail = f"{dice.choice(FAILPOINTS[target.partition('-')[0]])}:kill@{dice.randint(1, 8)}"
        case "disk error":
            target, seconds = "export", round(dice.uniform(1, 4), 2)
            steps = [point for point in FAILPOINTS[target] if point != NOT_OF_THE_DISK]
            detail = f"{dice.choice(steps)}:{dice.choice(DISK_ERRORS)}"
        case "disk full":
            target, seconds = "", round(dice.uniform(1, 4), 2)
        case "clock":
            most = MAX_CLOCK_STEP_SECONDS[target]
            detail, seconds = f"{dice.randint(-most, most):+d}", round(dice.uniform(2, 10), 2)
        case "cut" | "hold" | "slow" | "lose answers":
            target, seconds = dice.choice(LINKS), round(dice.uniform(0.3, 4), 2)
    return Fault(before_job, kind, target, seconds, detail)
