"""A pool of workers on a Ray cluster, each an actor with its share of processors and GPUs.

The only module that imports Ray, an extra. Tasks and results are small: files go through the shared store and not
through Ray's, so that a full object store, which spills, holds nothing up.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from sg3cli.errors import DeviceError, UsageError
from sg3cli.pipeline.batch.schedule import Ended
from sg3cli.pipeline.batch.tasks import Task
from sg3cli.pipeline.batch.worker import Worker

INSTALL = "in the clone: pip install '.[cluster]'; without --ray the same command runs here"
OBJECT_STORE = 100 << 20  # bytes, of a cluster that is started for the batch
LATE = 20.0  # seconds after which it is said that no worker has begun
CONNECTING = 10.0  # seconds
CLOSING = 5.0  # seconds for workers to remove their folders
LOCAL = "local"


@dataclass(frozen=True)
class Workers:
    """How many workers (None: as many as the cluster has room for), with so many processors and GPUs each."""

    count: int | None = None
    cpus: float = 1
    gpus: float = 0


class RayPool:
    """Workers of a cluster: `address` is `local` (one is started here), `auto` (the one that runs) or its address.
    `tell` hears when it takes long until there is one.

    Raises `UsageError` without Ray, `DeviceError` for a cluster that is not there or has no room.
    """

    def __init__(self, address: str, workers: Workers, tell: Callable[[str], None]) -> None:
        self._ray = import_ray()
        self._workers, self._tell, self._began = workers, tell, time.monotonic()
        self._starting: dict[Any, Any] = {}  # reference of its name -> worker
        self._idle: list[Any] = []
        self._running: dict[Any, tuple[int, Any]] = {}  # reference of a result -> task's number, worker
        self._names: dict[Any, str] = {}
        self._mine = not self._ray.is_initialized()
        if self._mine:
            self._connect(address)
        try:
            room = self._room()
            count = room if workers.count is None else workers.count
            for _ in range(count):
                self._start()
        except BaseException:
            self.close()
            raise

    def _connect(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        if host and "//" not in address and port.isdigit():  # Ray itself would try for minutes
            try:
                socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECTING).close()
            except OSError as error:
                raise absent(address, error.strerror or str(error)) from error
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        kept = signal.getsignal(signal.SIGTERM)
        start = {"object_store_memory": OBJECT_STORE, "include_dashboard": False} if address == LOCAL else {}
        try:
            self._ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **start)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise absent(address, str(error).partition("\n")[0]) from error
        finally:
            signal.signal(signal.SIGTERM, kept)

    def _room(self) -> int:
        """How many workers the cluster can hold. Raises `DeviceError` when that is none."""
        there, wanted = self._ray.cluster_resources(), {"CPU": self._workers.cpus, "GPU": self._workers.gpus}
        room = [int(there.get(kind, 0) / amount + 1e-6) for kind, amount in wanted.items() if amount > 0]
        if min(room, default=1) < 1:
            what = f"no machine has room for a worker of {self._workers.cpus:g} CPUs and {self._workers.gpus:g} GPUs"
            raise DeviceError(what, f"there are {there.get('CPU', 0):g} CPUs and {there.get('GPU', 0):g} GPUs in all")
        return min(room, default=1)

    def _start(self) -> None:
        cpus, gpus = self._workers.cpus, self._workers.gpus
        kind = self._ray.remote(Worker).options(num_cpus=cpus, num_gpus=gpus, scheduling_strategy="SPREAD")
        threads = int(os.environ.get("OMP_NUM_THREADS", "").partition(",")[0] or max(1, int(cpus)))
        worker = kind.remote(threads)
        self._starting[worker.name.remote()] = worker

    @property
    def names(self) -> list[str]:
        """All workers that there were."""
        return sorted(self._names.values())

    def free(self) -> int:
        """How many workers wait for a task."""
        return len(self._idle)

    def submit(self, number: int, task: Task) -> None:
        """Send a task to a worker that waits."""
        worker = self._idle.pop(0)
        self._running[worker.perform.remote(task)] = (number, worker)

    def wait(self) -> Ended | None:
        """See `Pool`. Raises `DeviceError` when no worker is left, and the cluster has no room for one."""
        waited = [*self._running, *self._starting]
        try:
            ready, _ = self._ray.wait(waited, num_returns=1, timeout=5.0)
        except SystemError as broken:  # what Ray makes of an exception that a signal's handler raises while it waits
            raise broken.__cause__ or broken from None
        if not ready:
            if not self._running and not self._idle and time.monotonic() - self._began > LATE:
                self._room()
                self._tell("no worker has begun yet; perhaps the cluster is full (`ray status` tells)")
            return None
        if ready[0] in self._starting:
            self._begun(ready[0])
            return None
        number, worker = self._running.pop(ready[0])
        try:
            result, error = self._ray.get(ready[0])
        except self._ray.exceptions.RayTaskError as bug:
            self._idle.append(worker)
            return Ended(number, error=bug)
        except self._ray.exceptions.RayError as lost:
            self._start()
            return Ended(number, lost=f"{self._names.get(worker, 'a worker')}: {type(lost).__name__}")
        self._idle.append(worker)
        return Ended(number, result, error)

    def _begun(self, reference: Any) -> None:
        worker = self._starting.pop(reference)
        try:
            self._names[worker] = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as bug:
            raise DeviceError(f"a worker cannot begin: {bug.cause}", "is sg3 installed on all machines?") from bug
        except self._ray.exceptions.RayError:
            self._start()
        else:
            self._idle.append(worker)

    def close(self) -> None:
        """End the workers, and the cluster if it was started for them."""
        if self._idle:  # those at work are not waited for; their folders go when another worker begins there
            closing = [worker.close.remote() for worker in self._idle]
            self._ray.wait(closing, num_returns=len(closing), timeout=CLOSING)
        for worker in [*self._idle, *self._starting.values(), *(worker for _, worker in self._running.values())]:
            self._ray.kill(worker)
        if self._mine:
            self._ray.shutdown()


def absent(address: str, why: str) -> DeviceError:
    """The error of a cluster that cannot be reached."""
    return DeviceError(f"there is no Ray cluster at {address}: {why}", "start one (ray start --head), or --ray local")


def import_ray() -> Any:
    """The package; raises `UsageError` where it is not installed."""
    if find_spec("ray") is None:
        raise UsageError("--ray needs the package ray", INSTALL)
    import ray

    return ray
