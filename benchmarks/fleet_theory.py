"""What queueing theory says of systems that the simulation must agree with."""

from __future__ import annotations

from math import log


def erlang_c(servers: int, load: float) -> float:
    """The probability that a job waits in M/M/c. `load` is the arrival rate times the mean service time, below c.

    By the recursion for Erlang's B formula (Cooper, Introduction to Queueing Theory, 1981, equations 3.6 and 4.8).
    """
    blocked = 1.0
    for count in range(1, servers + 1):
        blocked = load * blocked / (count + load * blocked)
    utilization = load / servers
    return blocked / (1 - utilization * (1 - blocked))


def mean_wait(servers: int, load: float, service_seconds: float) -> float:
    """The mean wait of a job in M/M/c, in seconds."""
    return erlang_c(servers, load) * service_seconds / (servers - load)


def wait_quantile(servers: int, load: float, service_seconds: float, quantile: float) -> float:
    """A quantile of the wait in M/M/c, in seconds: those who wait at all wait exponentially long."""
    waits = erlang_c(servers, load)
    return max(0.0, log(waits / (1 - quantile)) * service_seconds / (servers - load))


def shared_sojourn(load: float, service_seconds: float) -> float:
    """The mean time that a job spends in M/G/1 with processor sharing, in seconds, whatever the distribution of sizes
    (Kleinrock, Queueing Systems II, 1976, section 4.4)."""
    return service_seconds / (1 - load)
