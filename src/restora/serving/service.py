"""The service: models, jobs, queue and worker together, with start and stop."""

import asyncio
import time

from restora.serving.jobs import FINISHED, Job, JobStore
from restora.serving.limits import Limits
from restora.serving.metrics import Metrics
from restora.serving.models import ServedModel
from restora.serving.problems import Problem
from restora.serving.worker import Place, Queue, Worker

LINGER_SECONDS = 10
"""A stopping server stays this long after its last photo, for clients that poll."""


class Service:
    """The interface of the routes. Call `start` once in a running loop, and `stop` once."""

    def __init__(self, *, models: dict[str, ServedModel], limits: Limits, batch: int = 1) -> None:
        self.models, self.limits = models, limits
        self.metrics = Metrics()
        self.store = JobStore(limits=limits)
        self.queue = Queue(size=limits.queue)
        self.worker = Worker(
            models=models.values(), queue=self.queue, store=self.store, limits=limits, batch=batch
        )
        self.stopping = False

    @property
    def ready(self) -> bool:
        return self.worker.ready.is_set() and self.worker.is_alive() and not self.stopping

    async def start(self) -> None:
        self.store.attach(asyncio.get_running_loop())
        self.worker.start()

    async def tidy(self) -> None:
        """Removes old results, without end."""
        while True:
            await asyncio.sleep(1)
            self.store.expire(time.monotonic())

    def reserve(self) -> Place:
        """A place in the queue. Raises Problem while warming up, when full, and when stopping."""
        if self.stopping or not self.worker.ready.is_set():
            what = "stopping" if self.stopping else "warming up"
            raise Problem(503, "not-ready", f"the server is {what}: send the photo again soon", 5)
        return self.queue.reserve()

    def cancel(self, job: Job) -> None:
        """Removes a waiting or finished job; stops a running one after its current tile."""
        if job.state in FINISHED:
            self.store.remove(job)
            return
        job.cancelled.set()
        if self.queue.remove(job):
            self.worker.end(job, "cancelled")

    async def stop(self, grace: float) -> None:
        """Accepts no more photos and finishes the accepted ones, for at most `grace` seconds.

        The remaining jobs fail with a problem that says so. Then waits a little for results to be fetched.
        """
        self.stopping = True
        self.queue.close()
        end = time.monotonic() + grace
        while time.monotonic() < end and any(self.store.unfinished()):
            await asyncio.sleep(0.05)
        back = Problem(503, "not-ready", "the server stopped before this photo's turn: send it again", 5)
        for job in self.queue.clear():
            self.worker.end(job, "failed", back)
        for job in self.store.unfinished():
            job.handed_back = back
            job.cancelled.set()
        end = time.monotonic() + min(grace, LINGER_SECONDS)
        while time.monotonic() < end and self._unfetched():
            await asyncio.sleep(0.05)

    def _unfetched(self) -> bool:
        jobs = list(self.store.jobs.values())
        return any(job.state not in FINISHED for job in jobs) or any(
            job.state == "done" and not job.fetched for job in jobs
        )
