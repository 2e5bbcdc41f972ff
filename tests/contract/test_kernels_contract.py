"""What every kernel is to the code in its cells and to its driver, however it was started.

* cells: outputs are those of Jupyter's messages, whoever wrote them, complete and in their cell;
  `await`, the shell, its configuration and the command line are ipykernel's;
* the process: its own working directory, environment, hash seed, signals and generators; nothing of
  its driver's open files; what it imported is told;
* life: it can be interrupted, its end is seen at once with its exit code, exit functions run and
  open files are written when it is asked to exit, and it never outlives its driver.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest

from cellrail.kernels.cold import ColdKernel, close_thread
from cellrail.kernels.kernel import Kernel
from cellrail.kernels.supply import Supplied, Wanted, WarmSupply, cold
from cellrail.run import prepare
from cellrail.run.client import CellClient, CellResult, Ending
from reading import wait_for

Start = Callable[[Wanted], Supplied]
_ORDERS = {"checkpoint": False, "on_error": False, "binds_error": ""}


def is_over(process: psutil.Process) -> bool:
    """Whether it runs no more, though nobody may have taken note of its end."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


class Driven:
    """A kernel that is ready, and a notebook that takes what its cells show."""

    def __init__(self, kernel: Kernel, folder: Path) -> None:
        self.kernel = kernel
        kernel.wait_ready({"objects": str(folder / "objects"), "limits": {}, "secrets": []})
        self.notebook = nbformat.v4.new_notebook()
        self.client = CellClient(kernel, self.notebook, grace=30.0)
        self.cell: Any = None

    def run(self, source: str, timeout: float | None = 60.0) -> CellResult:
        self.cell = nbformat.v4.new_code_cell(source)
        self.notebook.cells.append(self.cell)
        sent = self.client.start(source, cell_id="cell", orders=dict(_ORDERS))
        return self.client.finish(sent, self.cell, len(self.notebook.cells) - 1, timeout)

    def text(self, source: str) -> str:
        """What a cell that succeeds prints and shows."""
        result = self.run(source)
        assert result.ending is Ending.OK, result.error
        return "".join(
            output["text"] if output["output_type"] == "stream" else output["data"]["text/plain"]
            for output in self.cell.outputs
        )

    def value(self, expression: str) -> Any:
        """What an expression is, as JSON tells it."""
        return json.loads(self.text(f"import json as _j\nprint(_j.dumps({expression}))"))


@pytest.fixture(scope="module")
def supply() -> Iterator[WarmSupply]:
    """Keeps what the tests' kernels are forked from."""
    made = WarmSupply()
    yield made
    made.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working directory of all kernels: what they are forked from depends on it."""
    return tmp_path_factory.mktemp("kernels")


class KernelContract:
    kind = ""

    @pytest.fixture
    def start(self, supply: WarmSupply) -> Start:
        raise NotImplementedError

    @pytest.fixture
    def begin(
        self, start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[Callable[..., Driven]]:
        """Starts kernels that end with the test."""
        kernels: list[Kernel] = []
        # ipykernel does not watch descriptors in tests, and each test has other keys
        monkeypatch.delenv("PYTEST_CURRENT_TEST")
        monkeypatch.setenv("CELLRAIL_KEYS", str(folder))

        def begin(**options: Any) -> Driven:
            wanted = Wanted(
                **{
                    "name": "python3", "cwd": folder, "hash_seed": 7,
                    "environment": prepare.kernel_environment(), **options,
                }
            )  # fmt: skip
            kernels.append(start(wanted).kernel)
            assert isinstance(kernels[-1], ColdKernel) is (self.kind == "cold")
            return Driven(kernels[-1], folder)

        yield begin
        for kernel in kernels:
            kernel.shutdown()

    @pytest.fixture
    def driven(self, begin: Callable[..., Driven]) -> Driven:
        return begin()

    # --- cells -------------------------------------------------------------------------------

    def test_outputs_are_those_of_jupyters_messages(self, driven: Driven) -> None:
        driven.run(
            "import sys\nfrom IPython.display import HTML, display\n"
            "print('out')\nprint('err', file=sys.stderr)\n"
            "handle = display(HTML('<b>1</b>'), display_id=True)\nhandle.update(HTML('<b>2</b>'))\n"
            "6 * 7"
        )
        outputs = driven.cell.outputs
        kinds = [output["output_type"] for output in outputs]
        assert kinds == ["stream", "stream", "display_data", "execute_result"]
        assert {o["name"]: o["text"] for o in outputs[:2]} == {"stdout": "out\n", "stderr": "err\n"}
        assert outputs[2]["data"]["text/html"] == "<b>2</b>"
        assert outputs[3]["data"] == {"text/plain": "42"}
        assert outputs[3]["execution_count"] == driven.cell.execution_count == 1
        nbformat.validate(driven.notebook)

    def test_a_failure_is_told_with_the_users_traceback(self, driven: Driven) -> None:
        result = driven.run("def f():\n    return 1 / 0\nf()")
        assert result.ending is Ending.ERROR
        assert result.error is not None
        assert (result.error.name, result.error.value) == ("ZeroDivisionError", "division by zero")
        shown = re.sub(r"\x1b\[[\d;]*m", "", "\n".join(driven.cell.outputs[-1]["traceback"]))
        assert "Cell In[1], line 3\n" in shown
        assert "Cell In[1], line 2, in f()" in shown
        assert driven.text("1 + 1") == "2"

    def test_subprocesses_and_descriptors_print_into_their_cell(self, driven: Driven) -> None:
        text = driven.text(
            "import os, subprocess\nprint('one', flush=True)\nsubprocess.run(['echo', 'two'])\n"
            "os.write(1, b'three\\n'); None"
        )
        assert [line for line in text.splitlines() if line in {"one", "two", "three"}] == [
            "one", "two", "three",
        ]  # fmt: skip

    def test_a_lot_of_output_arrives_whole(self, driven: Driven) -> None:
        assert driven.text("print('x' * 5_000_000)") == "x" * 5_000_000 + "\n"
        many = driven.text("for number in range(20_000):\n    print(number)")
        assert many == "".join(f"{number}\n" for number in range(20_000))

    def test_a_thread_prints_into_the_cell_that_waits_for_it(self, driven: Driven) -> None:
        text = driven.text(
            "import threading\n"
            "threads = [threading.Thread(target=print, args=('t' * 10,)) for _ in range(20)]\n"
            "for t in threads: t.start()\nfor t in threads: t.join()"
        )
        assert text.count("t" * 10) == 20

    def test_a_forked_process_prints_and_ends_alone(self, driven: Driven) -> None:
        text = driven.text(
            "import os\npid = os.fork()\n"
            "if pid == 0:\n    print('child', flush=True)\n    os._exit(0)\n"
            "print('status', os.waitpid(pid, 0)[1])"
        )
        assert "status 0" in text
        assert driven.text("'still here'") == "'still here'"

    def test_a_pool_of_forked_processes_works(self, driven: Driven) -> None:
        driven.run("def double(x):\n    return 2 * x")
        result = driven.text(
            "import multiprocessing as mp\nwith mp.get_context('fork').Pool(2) as pool:\n"
            "    got = pool.map(double, range(5))\ngot"
        )
        assert result == "[0, 2, 4, 6, 8]"

    def test_cells_can_await_and_tasks_go_on_between_them(self, driven: Driven) -> None:
        driven.run(
            "import asyncio\nseen = []\nasync def work():\n    await asyncio.sleep(0)\n"
            "    seen.append('done')\ntask = asyncio.ensure_future(work())"
        )
        assert driven.text("await task\nseen") == "['done']"

    def test_values_that_json_cannot_tell_are_shown(self, driven: Driven) -> None:
        text = driven.text(
            "from IPython.display import JSON, display\n"
            "display(JSON({'big': 10 ** 30, 'nan': float('nan')}))\nprint('\\udc80', '\\0', 'ü')"
        )
        assert "ü" in text
        assert driven.cell.outputs[0]["data"]["application/json"]["big"] == 10**30

    def test_a_question_to_the_person_is_refused(self, driven: Driven) -> None:
        for ask in ("input('?')", "import getpass; getpass.getpass()"):
            result = driven.run(ask)
            assert result.error is not None
            assert result.error.name == "StdinNotImplementedError"

    def test_the_shell_is_ipykernels(self, driven: Driven) -> None:
        driven.run("import sys, ipykernel.ipkernel, ipykernel.zmqshell, ipykernel.iostream")
        driven.run("from ipykernel.kernelapp import IPKernelApp\nshell = get_ipython()")
        assert driven.text("type(shell) is ipykernel.zmqshell.ZMQInteractiveShell") == "True"
        kernel, stream = "ipykernel.ipkernel.IPythonKernel", "ipykernel.iostream.OutStream"
        assert driven.text(f"isinstance(shell.kernel, {kernel})") == "True"
        assert driven.text(f"isinstance(sys.stdout, {stream})") == "True"
        assert driven.text("'IPKernelApp' in shell.config and IPKernelApp.initialized()") == "True"
        assert driven.text("shell.kernel.get_parent()['content']['silent']") == "False"
        assert driven.text("__name__, sys.stdout.isatty(), sys.stdin.isatty()") == (
            "('__main__', False, False)"
        )
        words = driven.value("sys.argv")
        assert Path(words[0]).name == "ipykernel_launcher.py"
        assert words[1] == "-f"

    def test_a_figure_is_shown_inline(self, driven: Driven) -> None:
        driven.run("import matplotlib.pyplot as plt\nplt.plot([1, 2])\nNone")
        shown = [o for o in driven.cell.outputs if o["output_type"] == "display_data"]
        assert len(shown) == 1
        assert shown[0]["data"]["image/png"].startswith("iVBOR")

    # --- the process -------------------------------------------------------------------------

    def test_it_begins_with_nothing_but_the_shells_own_names(self, driven: Driven) -> None:
        assert driven.value("[n for n in dir() if not n.startswith('_')]") == [
            "In", "Out", "exit", "get_ipython", "open", "quit",
        ]  # fmt: skip

    def test_two_kernels_share_nothing(self, begin: Callable[..., Driven]) -> None:
        first, second = begin(), begin()
        first.run("import os, json; secret = 1; json.mark = 1; os.environ['MARK'] = '1'")
        assert second.value("'secret' in dir() or hasattr(_j, 'mark')") is False
        assert second.text("import os; os.environ.get('MARK')") == ""

    def test_it_stands_in_its_folder_with_its_environment(
        self, begin: Callable[..., Driven], folder: Path
    ) -> None:
        driven = begin(environment={**prepare.kernel_environment(), "MINE": "1"})
        driven.run("import os, sys")
        assert driven.value("os.getcwd()") == str(folder)
        found = driven.value("dict(os.environ)")
        assert found["MINE"] == "1"
        assert found["PYTHONHASHSEED"] == "7"
        assert not [name for name in found if "CHANNEL" in name or "ZYGOTE" in name]
        (folder / "beside.py").write_text("here = 1")
        assert driven.text("import beside; beside.here") == "1"
        assert driven.value("os.getpgid(0) == os.getpid() == os.getsid(0)") is True

    def test_generators_begin_anew_in_each_kernel(self, begin: Callable[..., Driven]) -> None:
        draw = "import random, numpy\n(random.random(), numpy.random.random())"
        draws = [begin(imports=("numpy",)).text(draw) for _ in range(2)]
        assert draws[0] != draws[1]

    def test_nothing_of_the_driver_is_open(
        self, begin: Callable[..., Driven], folder: Path
    ) -> None:
        with (folder / "held").open("w") as held:
            os.set_inheritable(held.fileno(), True)
            driven = begin()
            driven.run("import os")
            found = driven.value(
                "[os.readlink(f'/proc/self/fd/{fd}') for fd in os.listdir('/proc/self/fd')"
                " if os.path.exists(f'/proc/self/fd/{fd}')]"
            )
        assert str(folder / "held") not in found

    def test_packages_are_told_when_a_cell_has_imported_them(
        self, begin: Callable[..., Driven]
    ) -> None:
        driven = begin(imports=("pandas",))
        assert "ipykernel" in driven.kernel.hello["packages"]
        assert "pandas" not in driven.kernel.hello["packages"]
        report = driven.run("import pandas").report
        assert report is not None
        assert "pandas" in report["packages"]

    # --- life --------------------------------------------------------------------------------

    def test_a_running_cell_can_be_interrupted_and_the_kernel_goes_on(self, driven: Driven) -> None:
        for source in ("import time\ntime.sleep(60)", "while True: pass",
                       "import asyncio\nawait asyncio.sleep(60)"):  # fmt: skip
            # a kernel that hears nothing would be killed in the end
            assert driven.run(source, timeout=0.5).ending is Ending.TIMEOUT
            assert driven.text("'alive'") == "'alive'"

    @pytest.mark.parametrize("when", ["its code is done", "it was captured"])
    def test_ctrl_c_tears_no_message_that_is_being_read(
        self, driven: Driven, monkeypatch: pytest.MonkeyPatch, when: str
    ) -> None:
        channel = driven.client._channel
        receive, seen = channel.receive, list[str]()

        def interrupted(timeout: float | None = None) -> Any:
            message = receive(timeout)
            kind = message["kind"] if message is not None else "none"
            done = kind == "ran" or kind not in {
                "none",
                "ask",
                "output",
                "reply",
                "loading",
                "loaded",
            }
            if done and not seen and (kind == "ran") == (when == "its code is done"):
                seen.append(kind)
                signal.raise_signal(signal.SIGINT)
            return message

        monkeypatch.setattr(channel, "receive", interrupted)
        began = time.monotonic()
        result = driven.run("x = 1")
        assert len(seen) == 1
        # it was done, and what it left is there; nothing had to be killed for want of it
        assert (result.ending, time.monotonic() - began < 25) == (Ending.OK, True)
        assert result.report is not None

    def test_a_cell_that_hears_no_interrupt_is_killed(self, driven: Driven) -> None:
        driven.client = CellClient(driven.kernel, driven.notebook, grace=1.0)
        result = driven.run(
            "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass", 2.0
        )
        assert result.ending is Ending.TIMEOUT
        assert driven.kernel.exit_code() == -signal.SIGKILL

    @pytest.mark.parametrize(
        ("source", "code"),
        [
            ("import os; os._exit(3)", 3),
            ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL),
            ("import ctypes; ctypes.string_at(0)", -signal.SIGSEGV),
        ],
    )
    def test_its_end_is_seen_at_once(self, driven: Driven, source: str, code: int) -> None:
        began = time.monotonic()
        assert driven.run(source).ending is Ending.DIED
        assert time.monotonic() - began < 40
        assert driven.kernel.exit_code() == code
        assert not driven.kernel.alive()

    def test_exit_functions_run_and_open_files_are_written(
        self, driven: Driven, folder: Path
    ) -> None:
        driven.run(
            "import atexit, pathlib, threading, time\n"
            "atexit.register(lambda: pathlib.Path('ended').write_text('yes'))\n"
            "log = open('log', 'w'); log.write('held back')\n"
            "def late():\n    time.sleep(0.2); pathlib.Path('late').write_text('yes')\n"
            "threading.Thread(target=late).start()\n"
            "class Tidy:\n    def __del__(self): pathlib.Path('tidy').write_text('yes')\n"
            "tidy = Tidy()"
        )
        driven.kernel.shutdown()
        assert (folder / "ended").read_text() == "yes"
        assert (folder / "log").read_text() == "held back"
        assert (folder / "late").read_text() == "yes"
        assert (folder / "tidy").read_text() == "yes"

    def test_its_children_end_with_it(self, driven: Driven) -> None:
        driven.run("import subprocess\nchild = subprocess.Popen(['sleep', '1000'])")
        pid = driven.value("child.pid")
        child = psutil.Process(pid)
        driven.kernel.kill()
        wait_for(lambda: is_over(child), seconds=10)  # the system takes its time

    def test_another_is_like_it(self, driven: Driven, folder: Path) -> None:
        further = driven.kernel.another()
        try:
            further.wait_ready_alike()
            client = CellClient(further, nbformat.v4.new_notebook())
            cell = nbformat.v4.new_code_cell("import os; os.environ['PYTHONHASHSEED']")
            sent = client.start(cell.source, cell_id="c", orders=dict(_ORDERS))
            assert client.finish(sent, cell, 0, 60).ending is Ending.OK
            assert cell.outputs[0]["data"]["text/plain"] == "'7'"
        finally:
            further.shutdown()

    def test_kernels_can_be_started_by_any_thread(self, begin: Callable[..., Driven]) -> None:
        made: list[Driven] = []

        def work() -> None:
            made.append(begin())
            close_thread()

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert made[0].text("1") == "1"

    def test_it_never_outlives_its_driver(self, tmp_path: Path) -> None:
        driver = subprocess.Popen(
            [sys.executable, "-c", _DRIVER, type(self).kind, str(tmp_path)], stdout=subprocess.PIPE
        )
        assert driver.stdout is not None
        pid = int(driver.stdout.readline())
        kernel = psutil.Process(pid)
        driver.kill()
        driver.wait()
        driver.stdout.close()
        gone, _ = psutil.wait_procs([kernel], timeout=60)
        assert gone or kernel.status() == psutil.STATUS_ZOMBIE


#: a driver whose kernel is in the middle of a C call that holds the interpreter
_DRIVER = """
import sys
from pathlib import Path
from cellrail.kernels.supply import Wanted, WarmSupply, cold
from cellrail.run import prepare
from cellrail.run.client import CellClient
start = WarmSupply().start if sys.argv[1] == "warm" else cold
folder = Path(sys.argv[2])
kernel = start(
    Wanted(name="python3", cwd=folder, environment=prepare.kernel_environment(), hash_seed=7)
).kernel
kernel.wait_ready({"objects": str(folder / "objects"), "limits": {}, "secrets": []})
client = CellClient(kernel, {"cells": [], "metadata": {}})
client.start(
    "import ctypes\\nctypes.PyDLL(None).sleep(1000)", cell_id="c",
    orders={"checkpoint": False, "on_error": False, "binds_error": ""},
)
print(kernel.pid, flush=True)
import time
time.sleep(1000)
"""


class TestColdKernels(KernelContract):
    kind = "cold"

    @pytest.fixture
    def start(self) -> Start:
        return cold


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="kernels are forked on Linux only")
class TestWarmKernels(KernelContract):
    kind = "warm"

    @pytest.fixture
    def start(self, supply: WarmSupply) -> Start:
        return supply.start

    @pytest.mark.parametrize(
        "source", ["import os; os._exit(3)", "import ctypes; ctypes.string_at(0)"]
    )
    def test_what_was_printed_right_before_its_end_arrives(
        self, driven: Driven, source: str
    ) -> None:
        driven.run("import os; print('last words', flush=True)\n" + source)
        assert driven.cell.outputs[0]["text"] == "last words\n"
