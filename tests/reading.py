"""What tests read of a run: what a step printed, what became of each, how often a cell ran."""

from __future__ import annotations

import collections
import time
from collections.abc import Callable
from pathlib import Path

#: the beginning of a notebook whose cells tell an outside witness that they run
WITNESS = (
    "import os, signal, time\nfrom pathlib import Path\nfrom cellrail import flow\n"
    "def witness(word):\n"
    "    fd = os.open('witness.txt', os.O_WRONLY | os.O_APPEND | os.O_CREAT)\n"
    "    os.write(fd, f'{word}\\n'.encode()); os.close(fd)\n"
    "def first(word):\n"
    "    new = not os.path.exists(word)\n"
    "    Path(word).touch()\n"
    "    return new\n"
)
#: a flow that waits for an approval behind its second step
APPROVAL = (
    WITNESS,
    "%%step plan\nwitness('plan')\ncost = [3, 4]; also = cost",
    "%%step approve\nwitness('approve')\nurls = flow.suspend('1h'); print(sorted(urls))",
    "%%step deploy\nwitness('deploy')\nprint(flow.resume_data, flow.woke_by, also is cost)",
    "%%step later\nwitness('later')\n"
    "print(flow.resume_data, flow.woke_by, flow.step('approve').resume_data)",
)


def counts(folder: Path) -> dict[str, int]:
    """How often the witness was told each word."""
    return dict(collections.Counter((folder / "witness.txt").read_text().split()))


def printed(run, label: str) -> str:
    """What a step has printed; in a loop, its last turn."""
    outputs = run[label].outputs
    return "".join(output["text"] for output in outputs if output["output_type"] == "stream")


def statuses(run) -> dict[str, str]:
    """What became of each step."""
    return {step.label: str(step.status) for step in run.steps}


def wait_for(met: Callable[[], object], seconds: float = 90.0) -> None:
    """Come back when it is so; that it never is fails the test."""
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def kernels_alive(app, run_id: str) -> list[int]:
    """Those of a run's kernels that there still are."""
    import psutil

    pids = [line["pid"] for line in app.journal(run_id) if line["type"] == "kernel"]
    return [pid for pid in pids if psutil.pid_exists(pid)]
