"""Who executes the runs of a backfill: a protocol, and processes of this machine.

An executor is given tasks and tells what became of them. It promises nothing: a task whose process
died is told as lost, and whoever gave it looks at the store, where the truth is. So another kind (a
Dask cluster, where the store lies on a file system that all can reach) needs `submit`, `wait`,
`interrupt` and `close`, and no more.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Protocol

import msgspec

from cellrail.room import Room, bytes_below
from cellrail_state.model import Tick

#: a task: go on with a run whose wait is over
WAKE = "wake"
#: a worker that has executed so many runs is replaced by a new one
_RUNS_OF_A_WORKER = 200
_EXIT_SECONDS = 10.0


class Task(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run to be executed."""

    #: run, restart, rerun, recover or wake; share: the leading steps, for all runs of a backfill
    todo: str
    run_id: str
    notebook: str
    #: of another run: what is restarted or rerun
    origin: str = ""
    #: the file that holds the notebook as it is to be run; "" for its own
    pinned: str = ""
    #: as `notebook.parameters.to_json` writes them
    parameters: dict[str, Any] = {}
    #: names of those that are secret
    secrets: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    output: str = ""
    tick: Tick | None = None
    #: somebody asked for it, with these options of the App: a refusal is told, not mended
    by_hand: bool = False
    options: dict[str, Any] = {}
    #: of `wake`: the wait
    wait: str = ""
    #: a folder that holds local modules as they are to be run; "" for the notebook's own
    modules: str = ""
    #: how its kernel starts: cold or warm
    kernels: str = "cold"
    #: the seed of its string hashes; None for any
    hash_seed: int | None = None
    #: of a restart: the cut, where it is no failed step
    from_step: str = ""
    #: the last step to be executed; "" for all
    to: str = ""
    #: whose states its steps see, where that does not follow
    scope: str = ""
    #: what its cells do is watched, for others to share
    watch: bool = False


class Done(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of a task."""

    run_id: str
    #: what the run came to; "" where it did not begin, or nobody knows
    status: str = ""
    #: why, where it is not success; names the step
    cause: str = ""
    #: why it did not begin, and what to do
    error: str = ""
    hint: str = ""
    #: another process has begun it, or runs it
    elsewhere: bool = False
    #: the process that executed it has died
    lost: bool = False


class Executor(Protocol):
    """Executes tasks, some at a time."""

    @property
    def free(self) -> int:
        """So many tasks could begin at once."""

    @property
    def busy(self) -> list[str]:
        """The runs that are being executed."""

    def submit(self, task: Task) -> None:
        """Begin a task; only where one is free."""

    def wait(self, seconds: float) -> list[Done]:
        """What has ended, waiting for the first so long at most."""

    def interrupt(self, run_id: str) -> None:
        """Interrupt a run, as Ctrl-C would."""

    def close(self) -> None:
        """Nothing more is coming. What still runs goes on to its end."""


class LocalProcesses:
    """Workers on this machine: processes that execute one run after another.

    They are not killed with the process that gave them work: each ends the run that it has begun,
    and then itself. (Ctrl-C in a terminal does not reach them either: who gave the work decides.)
    """

    def __init__(
        self, store: Path, *, count: int, log: Path, keys: str = "", cores: int = 0,
        memory: int = 0,
    ) -> None:  # fmt: skip
        """Know how many there may be; they are started when there is work.

        Args:
            store: the store's folder.
            count: so many at most.
            log: what they print goes to this file.
            keys: folder of the signing keys; "" for the user's own.
            cores: all of them together use so many processors; 0 for those of the machine.
            memory: bytes that all of them together may take; 0 for no bound.
        """
        self._store, self._count, self._log, self._keys = store, max(1, count), log, keys
        self._cores, self._room = cores, Room(memory, bytes_below) if memory else None
        self._workers: list[_Worker] = []
        self._done: queue.SimpleQueue[tuple[_Worker, Done | None]] = queue.SimpleQueue()

    @property
    def free(self) -> int:
        """So many tasks could begin at once."""
        busy, count = [worker for worker in self._workers if worker.run_id], self._count
        if self._room is not None and len(busy) < count:
            count = min(count, self._room.holds(worker.pid for worker in busy))
        return max(0, count - len(busy))

    @property
    def busy(self) -> list[str]:
        """The runs that are being executed."""
        return [worker.run_id for worker in self._workers if worker.run_id]

    def submit(self, task: Task) -> None:
        """Begin a task, in a worker that is idle or a new one."""
        for worker in [w for w in self._workers if not w.run_id]:
            if worker.give(task):
                return
            self._workers.remove(worker)
        worker = _Worker(self._start(), self._done)
        worker.stay_on(self._cores)
        self._workers.append(worker)
        worker.give(task)

    def wait(self, seconds: float) -> list[Done]:
        """What has ended, waiting for the first so long at most."""
        found = []
        with contextlib.suppress(queue.Empty):
            found.append(self._done.get(timeout=seconds))
            while True:
                found.append(self._done.get_nowait())
        told = []
        for worker, done in found:
            if self._room is not None:
                self._room.ended()
            run_id, worker.run_id = worker.run_id, ""
            if done is not None:
                told.append(done)
            elif run_id:
                told.append(Done(run_id=run_id, lost=True))
            if done is None or worker.given >= _RUNS_OF_A_WORKER:
                worker.close()
                if worker in self._workers:
                    self._workers.remove(worker)
        return told

    def interrupt(self, run_id: str) -> None:
        """Interrupt a run, as Ctrl-C would."""
        for worker in self._workers:
            if worker.run_id == run_id:
                worker.interrupt()

    def close(self) -> None:
        """Nothing more is coming."""
        for worker in self._workers:
            worker.close()
        for worker in self._workers:
            if not worker.run_id:
                worker.join()
        self._workers.clear()

    def _start(self) -> subprocess.Popen[bytes]:
        environment: Mapping[str, str] = os.environ
        if self._keys:
            environment = {**os.environ, "CELLRAIL_KEYS": self._keys}
        self._log.parent.mkdir(parents=True, exist_ok=True)
        # (-P: what lies in this folder is no module of ours, whatever it is called)
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "cellrail.worker", str(self._store)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment,
                start_new_session=True,
            )  # fmt: skip


class _Worker:
    """A process, and the thread that listens to it."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        done: queue.SimpleQueue[tuple[_Worker, Done | None]],
    ) -> None:
        self._process, self._done = process, done
        #: what it executes; "" while it is idle
        self.run_id = ""
        self.given = 0
        threading.Thread(target=self._listen, name="cellrail-worker", daemon=True).start()

    def give(self, task: Task) -> bool:
        """Give it a task; whether it lives."""
        pipe = self._pipe
        try:
            pipe.write(msgspec.json.encode(task) + b"\n")
            pipe.flush()
        except (OSError, ValueError):
            return False
        self.run_id, self.given = task.run_id, self.given + 1
        return True

    @property
    def _pipe(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    def _listen(self) -> None:
        assert self._process.stdout is not None
        decoder = msgspec.json.Decoder(Done)
        with self._process.stdout as pipe:
            for line in pipe:
                try:
                    self._done.put((self, decoder.decode(line)))
                except msgspec.MsgspecError:  # it died in the middle of a line
                    break
        self._done.put((self, None))
        self._process.wait()  # the system forgets it

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def stay_on(self, cores: int) -> None:
        """Use so many of the processors that this process may use, and whatever it starts, too."""
        if cores and hasattr(os, "sched_setaffinity"):
            allowed = sorted(os.sched_getaffinity(0))
            with contextlib.suppress(OSError):  # it has died: that is told soon
                os.sched_setaffinity(self.pid, allowed[:cores])

    def interrupt(self) -> None:
        """As Ctrl-C would."""
        with contextlib.suppress(OSError):
            self._process.send_signal(signal.SIGINT)

    def close(self) -> None:
        """It ends when it has done what it has begun."""
        with contextlib.suppress(OSError):
            self._pipe.close()

    def join(self) -> None:
        """Wait for its end."""
        try:
            self._process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
