"""A worker of `LocalProcesses`: executes the tasks on its standard input, one after another.

A task and what became of it are a line of JSON each. Its standard input ends when nobody gives it
work any more, or when who did has died; either way it ends what it has begun.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys

import msgspec

from cellrail.app import App
from cellrail.executors import Done, Task
from cellrail.ownprocess import begin_quickly


def main(store: str) -> None:
    """Execute tasks until there are no more."""
    # what anything prints here is no answer
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    _listen(False)
    #: by notebook: what is made for one run serves the next
    apps: dict[str, App] = {}
    for line in iter(sys.stdin.buffer.readline, b""):
        done = _execute(store, apps, msgspec.json.decode(line, type=Task))
        with contextlib.suppress(OSError):  # who gave the work is gone
            answers.write(msgspec.json.encode(done) + b"\n")
            answers.flush()
    for app in apps.values():
        app.close()


def _execute(store: str, apps: dict[str, App], task: Task) -> Done:
    try:
        try:
            _listen(True)
            app = apps.get(task.notebook) or App(store, notebook=task.notebook)
            apps[task.notebook] = app
            return app.execute(task)
        finally:
            _listen(False)
    except KeyboardInterrupt:
        _listen(False)
        return Done(run_id=task.run_id, error="interrupted")
    except Exception as error:  # noqa: BLE001 - a defect of ours: the others go on
        import traceback

        traceback.print_exc()
        return Done(run_id=task.run_id, error=f"{type(error).__name__}: {error}")


def _listen(on: bool) -> None:
    """Be interrupted while a run is executed, and at no other time: an answer is not lost."""
    signal.signal(signal.SIGINT, signal.default_int_handler if on else signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.default_int_handler if on else signal.SIG_DFL)


if __name__ == "__main__":
    begin_quickly()
    main(sys.argv[1])
