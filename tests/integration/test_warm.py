"""Runs whose kernels are forked.

* what is recorded, and what a restart makes of it, is the same as with cold kernels;
* what must not be done ahead of a fork is found, left to the kernels, and named;
* where a fork would not be the same, the kernel starts cold, and the reason is told;
* kernels and what they are forked from end with their driver.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from cellrail import App
from cellrail.kernels.cold import ColdKernel
from cellrail.kernels.supply import Wanted, WarmSupply
from cellrail.kernels.warm import WarmKernel
from cellrail.run import prepare
from cellrail_state.model import JobFinished, KernelStarted
from forking import can_copy_ahead

pytestmark = [
    pytest.mark.skipif(
        not sys.platform.startswith("linux"), reason="kernels are forked on Linux only"
    ),
    # it forks kernels as the product does
    pytest.mark.cold,
]


@pytest.fixture
def warm(app: App, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    """An App whose zygotes end with the test."""
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    yield app
    app.close()


def test_a_warm_run_records_what_a_cold_one_does(make: Callable[..., Path], warm: App) -> None:
    notebook = make(
        "import pandas as pd", "words = {f'w{n}' for n in range(50)}\norder = list(words)",
        "frame = pd.DataFrame({'a': [1, 2]})\nprint('made')", "frame.a.sum()",
    )  # fmt: skip
    hot, cold = warm.run(notebook, kernels="warm"), warm.run(notebook)
    assert (hot.status, cold.status) == ("success", "success")
    told = [
        [(s.number, s.status, sorted(s.variables), len(s.outputs)) for s in run.steps]
        for run in (hot, cold)
    ]
    assert told[0] == told[1]
    started = warm.history(hot.id).started
    assert started.hash_seed is not None
    # a cold kernel with the recorded seed has the same order
    again = warm.restart(hot.id, from_step="#2")
    assert again["#2"].variables["order"].load() == hot["#2"].variables["order"].load()
    packages = [_packages(warm, run.id) for run in (hot, cold)]
    assert packages[0] == packages[1]
    assert "pandas" in packages[0]
    # told with the step that imports it
    assert "pandas" in warm.history(hot.id).state(1).job.packages


def _packages(app: App, run_id: str) -> dict[str, str]:
    """All that were told, by the kernel and by the steps."""
    told: dict[str, str] = {}
    for record in app.store.records(run_id):
        if isinstance(record, KernelStarted | JobFinished):
            told |= record.packages
    return told


def test_runs_are_restarted_across_both_kinds(make: Callable[..., Path], warm: App) -> None:
    notebook = make("import numpy as np", "x = np.arange(3)", "y = x + 1", "int(y.sum())")
    hot, cold = warm.run(notebook, kernels="warm"), warm.run(notebook)
    for run, kernels in ((hot, "cold"), (hot, "warm"), (cold, "warm")):
        again = warm.restart(run.id, from_step="#3", kernels=kernels)
        assert again.status == "success"
        assert [step.status for step in again.steps] == ["kept", "kept", "success", "success"]
        assert list(again["#3"].variables["y"].load()) == [1, 2, 3]
        seeds = [warm.history(r.id).started.hash_seed for r in (run, again)]
        assert seeds[0] == seeds[1]


def test_items_of_a_parallel_loop_get_forked_kernels(make: Callable[..., Path], warm: App) -> None:
    notebook = make(
        "import os\nhome = os.getpid()",
        "%%step each --foreach n in range(3) --parallel 2 --collect got\n"
        "got = (n * n, os.getppid(), os.getpid() != home)",
        "squares = [g[0] for g in got]\nparents = {g[1] for g in got} | {os.getppid()}",
    )
    run = warm.run(notebook, kernels="warm")
    assert run.status == "success", run.cause
    assert run["#3"].variables["squares"].load() == [0, 1, 4]
    assert len(run["#3"].variables["parents"].load()) == 1
    assert all(g[2] for g in run["each"].variables["got"].load())


def test_a_dead_warm_kernel_fails_its_step_with_the_signal(
    make: Callable[..., Path], warm: App
) -> None:
    run = warm.run(make("a = 1", "import ctypes\nctypes.string_at(0)", "b = 2"), kernels="warm")
    assert run.status == "failed"
    assert "SIGSEGV" in run["#2"].cause
    assert [step.status for step in run.steps] == ["success", "failed", "pending"]
    assert warm.run(make("a = 1"), kernels="warm").status == "success"


def test_polars_is_left_to_the_kernels(
    make: Callable[..., Path], warm: App, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="cellrail")
    source = "import json\nimport polars as pl\nimport numpy"
    run = warm.run(make(source, "int(pl.Series([1, 2]).sum())"), kernels="warm")
    assert run.status == "success"
    assert "polars is left to each kernel: its threads do not survive a fork" in caplog.text


def test_the_run_is_recovered_after_its_driver_was_killed(
    make: Callable[..., Path], warm: App, tmp_path: Path
) -> None:
    notebook = make("x = 1", "import os, pathlib, time\nif not pathlib.Path('go').exists():\n"
                    "    pathlib.Path('here').write_text(str(os.getpid()))\n    time.sleep(600)",
                    "y = x + 1")  # fmt: skip
    driver = subprocess.Popen(
        [sys.executable, "-m", "cellrail", "run", str(notebook), "--kernels", "warm"],
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    here, deadline = tmp_path / "here", time.monotonic() + 100
    while not (here.exists() and here.read_text()):
        assert time.monotonic() < deadline
        assert driver.poll() is None
    kernel = psutil.Process(int(here.read_text()))
    zygote = kernel.parent()
    assert zygote is not None
    assert zygote.ppid() == driver.pid
    driver.kill()
    driver.wait()
    _, alive = psutil.wait_procs([kernel, zygote], timeout=10)
    assert all(process.status() == psutil.STATUS_ZOMBIE for process in alive)
    (tmp_path / "go").touch()
    run = warm.recover("last")
    assert run.status == "success"
    assert run["#3"].variables["y"].load() == 2


def test_a_zygote_ends_with_its_app(make: Callable[..., Path], warm: App) -> None:
    run = warm.run(make("import os\nparent = os.getppid()"), kernels="warm")
    zygote = psutil.Process(run["#1"].variables["parent"].load())
    warm.close()
    gone, _ = psutil.wait_procs([zygote], timeout=10)
    assert gone
    # and it can begin again
    assert warm.run(make("1"), kernels="warm").status == "success"


def test_one_zygote_serves_many_runs(make: Callable[..., Path], warm: App) -> None:
    notebook = make("import os\nparent, own = os.getppid(), os.getpid()")
    runs = [warm.run(notebook, kernels="warm") for _ in range(3)]
    values = [
        (run["#1"].variables["parent"].load(), run["#1"].variables["own"].load()) for run in runs
    ]
    assert len({parent for parent, _ in values}) == 1
    assert len({own for _, own in values}) == 3
    kernels = [r for r in warm.store.records(runs[0].id) if isinstance(r, KernelStarted)]
    assert [kernel.pid for kernel in kernels] == [values[0][1]]


# --- what is found ---------------------------------------------------------------------------


class Beside:
    """An environment of its own with distributions of the test's, and a kernel there."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.python = folder, folder / "env" / "bin" / "python"
        subprocess.run(
            [sys.executable, "-m", "venv", "--without-pip", str(folder / "env")], check=True
        )
        (self.site,) = (folder / "env" / "lib").glob("python*/site-packages")
        (self.site / "here.pth").write_text(
            "\n".join(entry for entry in sys.path if entry and Path(entry).is_dir())
        )
        spec = folder / "jupyter" / "kernels" / "beside"
        spec.mkdir(parents=True)
        (spec / "kernel.json").write_text(
            json.dumps({
                "argv": [str(self.python), "-m", "ipykernel_launcher", "-f", "{connection_file}"],
                "display_name": "beside", "language": "python",
            })
        )  # fmt: skip
        self.supply = WarmSupply()

    def install(self, name: str, source: str) -> None:
        """Put a module where distributions lie."""
        (self.site / f"{name}.py").write_text(source)

    def start(self, *imports: str) -> Any:
        wanted = Wanted(
            name="beside", cwd=self.folder, environment=prepare.kernel_environment(), hash_seed=3,
            imports=imports,
        )  # fmt: skip
        return self.supply.start(wanted).kernel

    def left(self) -> dict[str, str]:
        """What the zygotes leave to their kernels."""
        return {k: v for zygote, _ in self.supply._zygotes.values() for k, v in zygote.left.items()}


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Beside]:
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    made = Beside(tmp_path)
    yield made
    made.supply.close()


def _ends(kernel: Any) -> None:
    kernel.wait_ready({"objects": "objects", "limits": {}, "secrets": []})
    kernel.shutdown()
    assert kernel.exit_code() == 0


def test_imports_that_a_fork_would_break_are_left_to_the_kernels(beside: Beside) -> None:
    beside.install("fine", "value = 1")
    beside.install(
        "threaded",
        "import threading\n"
        "threading.Thread(target=threading.Event().wait, name='poller', daemon=True).start()",
    )
    beside.install("holding", "import socket\nheld = socket.socketpair()")
    beside.install("talking", "print('hello')")
    beside.install("warning", "import warnings\nwarnings.warn('old', stacklevel=1)")
    beside.install("drawing", "import random\nown = random.Random()")
    beside.install("broken", "raise OSError('no')")
    beside.install("outside", "import mine")
    (beside.folder / "mine.py").write_text("")
    expected = {
        "threaded": "a thread runs (poller)", "holding": "it holds socket",
        "drawing": "drawing keeps a generator", "talking": "it prints", "warning": "it prints",
        "broken": "its import fails: OSError: no", "outside": "it imports the local module mine",
        "mine": "it is local", "nowhere": "it is not installed",
    }  # fmt: skip
    for module, why in expected.items():
        kernel = beside.start("fine", module)
        assert isinstance(kernel, WarmKernel)
        assert beside.left()[module].startswith(why)
        _ends(kernel)


def test_a_native_thread_of_an_unknown_owner_is_found(beside: Beside) -> None:
    beside.install(
        "native",
        "import ctypes\nlibc = ctypes.CDLL(None)\nthread = ctypes.c_ulong()\n"
        "libc.pthread_create(ctypes.byref(thread), None, libc.pause, None)",
    )
    kernel = beside.start("native")
    assert isinstance(kernel, WarmKernel)
    assert "native threads of an unknown owner" in beside.left()["native"]
    _ends(kernel)


def test_an_installation_or_a_shadow_makes_a_new_zygote(beside: Beside) -> None:
    beside.install("fine", "value = 1")
    first = beside.start("fine")
    (zygote,) = [z for z, _ in beside.supply._zygotes.values()]
    assert "fine" in zygote.ahead
    _ends(beside.start("fine"))
    assert [z for z, _ in beside.supply._zygotes.values()] == [zygote]
    beside.install("further", "")
    second = beside.start("fine")
    (newer,) = [z for z, _ in beside.supply._zygotes.values()]
    assert newer is not zygote
    assert zygote.alive()  # a kernel of it runs
    (beside.folder / "fine.py").write_text("value = 2")
    third = beside.start("fine")
    assert beside.left()["fine"] == "it is local"
    for kernel in (first, second, third):
        _ends(kernel)
    assert not zygote.alive()


def test_a_configured_ipython_starts_cold_and_the_reason_is_told(
    beside: Beside, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    profile = beside.folder / "ipython" / "profile_default"
    profile.mkdir(parents=True)
    (profile / "ipython_kernel_config.py").write_text("c = get_config()\n")
    monkeypatch.setenv("IPYTHONDIR", str(beside.folder / "ipython"))
    kernel = beside.start()
    assert isinstance(kernel, ColdKernel)
    assert "the kernel starts cold: IPython is configured by" in caplog.text
    _ends(kernel)


def test_startup_files_run_in_each_kernel(beside: Beside, monkeypatch: pytest.MonkeyPatch) -> None:
    startup = beside.folder / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    monkeypatch.setenv("IPYTHONDIR", str(beside.folder / "ipython"))
    _ends(beside.start())
    # also such as came when the process to fork from was there
    (startup / "00.py").write_text("import os\nopen('pids', 'a').write(f'{os.getpid()}\\n')")
    kernels = [beside.start() for _ in range(2)]
    for kernel in kernels:
        assert isinstance(kernel, WarmKernel)
        _ends(kernel)
    assert len(beside.supply._zygotes) == 1
    told = (beside.folder / "pids").read_text().split()
    assert sorted(map(int, told)) == sorted(kernel.pid for kernel in kernels)


def test_a_kernel_whose_zygote_is_killed_dies_with_it(beside: Beside) -> None:
    kernel = beside.start()
    kernel.wait_ready({"objects": "objects", "limits": {}, "secrets": []})
    (zygote,) = [z for z, _ in beside.supply._zygotes.values()]
    os.kill(zygote._process.pid, signal.SIGKILL)
    zygote._process.wait()
    kernel._wait_exit(10)
    assert kernel.exit_code() == -signal.SIGKILL
    kernel.shutdown()
    following = beside.start()
    assert isinstance(following, WarmKernel)
    _ends(following)


# --- kernels forked ahead --------------------------------------------------------------------


def _zygote(beside: Beside) -> Any:
    (zygote,) = [z for z, _ in beside.supply._zygotes.values()]
    return zygote


def _ahead(beside: Beside, but: Sequence[Any] = ()) -> list[psutil.Process]:
    """Forks of the zygote beside these kernels, once there is one."""
    known = {kernel.pid for kernel in but}
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if _zygote(beside)._spare is not None:
            children = psutil.Process(_zygote(beside)._process.pid).children()
            return [child for child in children if child.pid not in known]
        time.sleep(0.01)
    raise AssertionError("nothing was forked ahead")


def test_one_kernel_is_forked_ahead_when_a_second_one_was_wanted(beside: Beside) -> None:
    first = beside.start()
    time.sleep(0.2)
    zygote = psutil.Process(_zygote(beside)._process.pid)
    assert [child.pid for child in zygote.children()] == [first.pid]  # a lone run needs no more
    second = beside.start()
    (spare,) = _ahead(beside, [first, second])
    third = beside.start()
    assert third.pid == spare.pid
    (another,) = _ahead(beside, [first, second, third])
    for kernel in (first, second, third):
        _ends(kernel)
    assert another.is_running()
    beside.supply.close()
    gone, _ = psutil.wait_procs([another], timeout=10)
    assert gone


def test_a_kernel_forked_ahead_runs_nothing_of_the_user_before_its_run(
    beside: Beside, monkeypatch: pytest.MonkeyPatch
) -> None:
    startup = beside.folder / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    monkeypatch.setenv("IPYTHONDIR", str(beside.folder / "ipython"))
    kernels = [beside.start(), beside.start()]
    _ahead(beside, kernels)
    # it came behind the fork, and is run by it all the same
    (startup / "00.py").write_text("import os\nopen('pids', 'a').write(f'{os.getpid()}\\n')")
    kernels.append(beside.start())
    _ahead(beside, kernels)
    for kernel in kernels:
        _ends(kernel)
    told = [int(word) for word in (beside.folder / "pids").read_text().split()]
    assert kernels[-1].pid in told
    assert set(told) <= {kernel.pid for kernel in kernels}


def test_a_kernel_forked_ahead_that_was_killed_is_replaced(beside: Beside) -> None:
    kernels = [beside.start(), beside.start()]
    (spare,) = _ahead(beside, kernels)
    spare.kill()
    deadline = time.monotonic() + 10
    while spare.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.01)
    kernels.append(beside.start())
    assert kernels[-1].pid != spare.pid
    assert not spare.is_running()  # nobody leaves it lying about
    for kernel in kernels:
        _ends(kernel)


def test_a_kernel_forked_ahead_goes_with_a_process_that_is_given_up(beside: Beside) -> None:
    beside.install("fine", "value = 1")
    for _ in range(2):
        _ends(beside.start("fine"))
    (spare,) = _ahead(beside)
    beside.install("further", "")
    kernel = beside.start("fine")
    assert kernel.pid != spare.pid
    gone, _ = psutil.wait_procs([spare], timeout=10)
    assert gone
    _ends(kernel)


@pytest.mark.skipif(not can_copy_ahead(), reason="the system copies pages ahead from Linux 5.14 on")
def test_a_kernel_forked_ahead_has_its_pages_copied_while_it_waits(beside: Beside) -> None:
    for _ in range(3):
        _ends(beside.start())
    (spare,) = _ahead(beside)
    known = 0
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and known < 1000:
        # the tenth word of the line, counted from behind the program's name: its faults
        known = int(Path(f"/proc/{spare.pid}/stat").read_text().rpartition(")")[2].split()[7])
        time.sleep(0.01)
    kernel = beside.start()
    assert kernel.pid == spare.pid
    assert known >= 1000
    _ends(kernel)
