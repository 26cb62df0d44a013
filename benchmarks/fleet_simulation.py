"""A fleet as a simulation of discrete events: jobs, claims, leases, GPUs, and what breaks. See `benchmarks.fleet`.

Each job's way is that of the real services: created in storage, claimed by a worker that has a free place, generated in
a batch, mastered by export, completed. Each of these operations takes its turn at storage and at Postgres, beside the
renewals, which are too many to be simulated one by one.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import simpy

from benchmarks.fleet_counts import Counts
from benchmarks.fleet_jobs import FairQueue, Job, arrivals
from benchmarks.fleet_model import DAY_SECONDS, HOUR_SECONDS, OperationCost, Scenario
from benchmarks.fleet_stations import Batch, ControlPlane, Station
from benchmarks.fleet_workers import Worker, build_workers

MIN_RUN_SECONDS = 30.0
"""How long a job that was handed back runs undisturbed: as in storage_service/domain/sharing/preemption.py."""


class FleetSimulation:
    """Runs one scenario. `counts` and `jobs_in` are read afterwards."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario, self.fleet, self.costs = scenario, scenario.fleet, scenario.costs
        self.env = simpy.Environment(scenario.begins_at)
        self.counts = Counts(scenario.begins_at)
        self.control = ControlPlane(self.costs, self.fleet.storage_servers, self.fleet.postgres_cores)
        self.export = Station(self.fleet.export_servers * self.fleet.export_cores)
        self.queues = [FairQueue(scenario.load.weights) for _ in self.fleet.models]
        self.waiting: list[deque[Worker]] = [deque() for _ in self.fleet.models]
        """Workers whose claim waits, by model; those that wait longest first."""
        self.claiming = [0 for _ in self.fleet.models]
        """Claims that are on their way, by model. Each has locked a job, which others skip."""
        self.workers = build_workers(self.fleet)
        self.by_priority: list[dict[int, dict[Job, Worker]]] = [{} for _ in self.fleet.models]
        """Jobs that are generated, by model and priority."""
        self.queued_by_client: dict[int, int] = {}
        self.arrivals: Iterable[Job] = arrivals(scenario)
        """The jobs that come, in the order of time."""
        self._called_at = scenario.begins_at

    def run(self) -> Counts:
        """Runs until the end of the scenario, and if it drains, until all jobs have ended."""
        for worker in self.workers:
            self.offer(worker)
        self.env.process(self._arrive())
        if self.scenario.preempts_after:
            self.env.process(self._preempt())
        from benchmarks.fleet_faults import start_faults

        start_faults(self)
        self.env.run(self.scenario.begins_at + self.scenario.seconds)
        last = self.env.now + DAY_SECONDS
        while self.scenario.drains and self.counts.in_system.value and self.env.now < last:
            self.env.run(self.env.now + 60.0)
        self.counts.advance(self.env.now)
        return self.counts

    def later(self, at: float, action: Callable[..., None], *arguments: Any) -> None:
        """Calls `action` at a time."""
        timeout = self.env.timeout(max(0.0, at - self.env.now))
        assert timeout.callbacks is not None
        timeout.callbacks.append(lambda _: action(*arguments))

    def call(self, cost: OperationCost, name: str) -> float:
        """Returns when an operation of storage that is requested now has been committed."""
        self.counts.events[name] += 1
        running, waiting = self.counts.running.value, self.counts.idle_claims.value
        renewals = running / self.fleet.renew_seconds
        now = self.env.now
        if self.control.is_saturated:
            self.counts.saturated_seconds += now - self._called_at
        self._called_at = now
        self.control.set_background(renewals, renewals * self.scenario.load.watchers, waiting / self.fleet.poll_seconds)
        return self.control.call(now, cost, changes=name != "claim_in_vain")

    def _arrive(self) -> Iterable[simpy.Event]:
        for job in self.arrivals:
            if job.arrives_at > self.env.now:
                yield self.env.timeout(job.arrives_at - self.env.now)
            self.counts.events["asked"] += 1
            queued = self.queued_by_client.get(job.client, 0)
            in_all = self.counts.in_system.value
            if queued >= self.fleet.max_pending_per_client or in_all >= self.fleet.max_pending:
                self.counts.events["refused"] += 1
                continue
            self.queued_by_client[job.client] = queued + 1
            self.counts.in_system.add(self.env.now, 1)
            self.later(self.call(self.costs.create, "create"), self._created, job)

    def _created(self, job: Job) -> None:
        job.created_at = self.env.now
        self.queues[job.model].enter(self.env.now, job)
        self.wake(job.model)

    def requeue(self, job: Job) -> None:
        """Queues a job once more, with its rank."""
        self.counts.events["requeued"] += 1
        self.queues[job.model].enter_again(self.env.now, job)
        self.wake(job.model)

    def wake(self, model: int) -> None:
        """Wakes the claims that a claimable job wakes: one has it, the others are in vain."""
        woken: list[Worker] = []
        waiting = self.waiting[model]
        wanted = len(waiting)
        if self.costs.claims_woken is not None:
            wanted = self.costs.claims_woken * self.fleet.storage_servers
        while waiting and len(woken) < wanted:
            worker = waiting.popleft()
            worker.is_waiting = False
            self.counts.idle_claims.add(self.env.now, -1)
            if worker.is_open:
                woken.append(worker)
        found = len(self.queues[model]) > self.claiming[model]
        for worker in woken[:found]:
            self._claim(worker)
        for worker in woken[found:]:
            self.later(self.call(self.costs.claim_in_vain, "claim_in_vain"), self._claim_ended, worker)
            worker.is_claiming = True

    def offer(self, worker: Worker) -> None:
        """A worker with a free place claims, or waits for work; one claim at a time."""
        if worker.is_claiming or worker.is_waiting or not worker.is_open:
            return
        if len(self.queues[worker.model]) > self.claiming[worker.model]:
            self._claim(worker)
        else:
            worker.is_waiting = True
            self.counts.idle_claims.add(self.env.now, 1)
            self.waiting[worker.model].append(worker)

    def _claim(self, worker: Worker) -> None:
        worker.is_claiming = True
        self.claiming[worker.model] += 1
        self.later(self.call(self.costs.claim, "claim"), self._claimed, worker, self.env.now)

    def _claimed(self, worker: Worker, asked_at: float) -> None:
        self.counts.claim_seconds.append(self.env.now - asked_at)
        self.claiming[worker.model] -= 1
        job = self.queues[worker.model].pop()
        job.lease += 1
        job.attempts += 1
        if job.claimed_at is None:
            job.claimed_at = self.env.now
            wait = job.claimed_at - job.created_at
            self.counts.waits[int(job.created_at // HOUR_SECONDS)].append(wait)
            self.counts.waits_by_priority[job.priority].append(wait)
        self.counts.running.add(self.env.now, 1)
        if worker.is_alive:
            self._start(worker, job)
        else:  # It died while the claim was on its way: the lease expires.
            self.later(self.env.now + self.fleet.lease_seconds, self.expire, job, job.lease)
        self._claim_ended(worker)

    def _claim_ended(self, worker: Worker) -> None:
        worker.is_claiming = False
        self.offer(worker)

    def _start(self, worker: Worker, job: Job) -> None:
        job.started_at, job.is_generating = self.env.now, True
        worker.jobs[job] = None
        self.by_priority[job.model].setdefault(job.priority, {})[job] = worker
        with self._changing(worker):
            worker.batch.add(self.env.now, job)

    def _changing(self, worker: Worker) -> _BatchChange:
        return _BatchChange(self, worker)

    def _batch_due(self, worker: Worker, version: int) -> None:
        if worker.batch.version != version:
            return
        with self._changing(worker):
            ended = worker.batch.pop_ended(self.env.now)
        for job in ended:
            job.is_generating, job.remaining_seconds = False, 0.0
            del self.by_priority[job.model][job.priority][job]
            mastered_at = self.export.serve(self.env.now, job.seconds * self.costs.export_seconds_per_audio_second)
            parts = math.ceil(job.seconds * self.scenario.load.bytes_per_second / self.fleet.part_bytes)
            self.counts.events["object_put"] += 1 if parts <= 2 else parts + 2
            self.later(mastered_at + self.costs.object_put_seconds, self._mastered, worker, job, job.lease)

    def _mastered(self, worker: Worker, job: Job, lease: int) -> None:
        if job.lease == lease and worker.is_alive:
            self.later(self.call(self.costs.complete, "complete"), self._completed, worker, job, lease)

    def _completed(self, worker: Worker, job: Job, lease: int) -> None:
        if job.lease == lease and worker.is_alive:
            self.counts.audio_by_client[job.client] += job.seconds
            self._end(job, "completed")
            self.leave(worker, job)

    def _end(self, job: Job, outcome: str) -> None:
        assert job.ended_at is None, "a job ends once"
        job.ended_at = self.env.now
        job.lease += 1
        self.counts.events[outcome] += 1
        self.counts.seconds_in_system += self.env.now - job.arrives_at
        self.counts.in_system.add(self.env.now, -1)
        self.counts.running.add(self.env.now, -1)
        self.queued_by_client[job.client] -= 1

    def leave(self, worker: Worker, job: Job) -> None:
        """Frees the place that a job has at a worker."""
        del worker.jobs[job]
        self.offer(worker)

    def lose(self, worker: Worker) -> None:
        """A worker dies: what it generated is lost, and its leases expire."""
        worker.is_alive = False
        for job in worker.jobs:
            if job.is_generating:
                self._stop_generating(worker, job)
                self.counts.regenerated_seconds += job.seconds - job.remaining_seconds
                job.remaining_seconds = job.seconds
            self.later(self.env.now + self.fleet.lease_seconds, self.expire, job, job.lease)
        worker.jobs.clear()
        self.counts.events["worker_lost"] += 1

    def expire(self, job: Job, lease: int) -> None:
        """The lease of a job expires; export still has all samples of one that had been generated."""
        if job.lease != lease or job.ended_at is not None:
            return
        job.lease += 1
        self.counts.events["lease_expired"] += 1
        if job.attempts - job.handed_back >= self.fleet.max_attempts:
            self._end(job, "failed")
            return
        self.counts.running.add(self.env.now, -1)
        self.requeue(job)

    def hand_back(self, worker: Worker, job: Job) -> None:
        """A worker returns a job, which is claimed again at once; with a checkpoint it goes on from there."""
        if job.is_generating:
            self._stop_generating(worker, job)
            if not self.scenario.checkpoints:
                self.counts.regenerated_seconds += job.seconds - job.remaining_seconds
                job.remaining_seconds = job.seconds
        job.lease += 1
        job.handed_back += 1
        self.counts.running.add(self.env.now, -1)
        self.counts.events["handed_back"] += 1
        self.later(self.call(self.costs.complete, "fail"), self.requeue, job)
        self.leave(worker, job)

    def _stop_generating(self, worker: Worker, job: Job) -> None:
        job.is_generating = False
        del self.by_priority[job.model][job.priority][job]
        with self._changing(worker):
            job.remaining_seconds = worker.batch.remove(self.env.now, job)

    def _preempt(self) -> Iterable[simpy.Event]:
        """Takes the place of the lowest priority for the first job in a queue that has waited for too long."""
        while True:
            yield self.env.timeout(1.0)
            for queue, running in zip(self.queues, self.by_priority, strict=True):
                first = queue.first()
                if first is None or self.env.now - first.queued_at < self.scenario.preempts_after:
                    continue
                lower = (priority for priority in sorted(running) if priority < first.priority and running[priority])
                if (lowest := next(lower, None)) is None:
                    continue
                since = self.env.now - MIN_RUN_SECONDS
                asked = (job for job in reversed(running[lowest]) if not job.handed_back or job.started_at <= since)
                if (job := next(asked, None)) is not None:
                    self.counts.events["preempted"] += 1
                    job.rank = math.nextafter(first.rank, math.inf)  # It comes right after the one it makes room for.
                    self.hand_back(running[lowest][job], job)


class _BatchChange:
    """Changes a worker's batch, and brings what depends on it up to date."""

    def __init__(self, simulation: FleetSimulation, worker: Worker) -> None:
        self._simulation, self._worker = simulation, worker

    def __enter__(self) -> None:
        self._before = self._worker.batch.count

    def __exit__(self, *_: object) -> None:
        simulation, batch = self._simulation, self._worker.batch
        now, counts = simulation.env.now, simulation.counts
        counts.busy.add(now, bool(batch.count) - bool(self._before))
        counts.used.add(now, self._share(batch, batch.count) - self._share(batch, self._before))
        batch.version += 1
        if (seconds := batch.next_end()) is not None:
            simulation.later(now + seconds, simulation._batch_due, self._worker, batch.version)

    @staticmethod
    def _share(batch: Batch, count: int) -> float:
        return count * batch.speed.rate(count) / batch.speed.capacity
