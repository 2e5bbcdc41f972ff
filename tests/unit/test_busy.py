"""Whatever runs the notebook's code beside its cells is seen, and nothing else is."""

from __future__ import annotations

import pytest
from IPython.core.interactiveshell import InteractiveShell

from cellrail.run.busy import Bystanders

#: what the notebook leaves -> its code, and what takes it back
LEFT = {
    "a thread": (
        "import threading; e = threading.Event()\nt = threading.Thread(target=e.wait); t.start()",
        "e.set(); t.join()",
    ),
    "a signal handler": (
        "import signal\ndef h(*_): pass\nold = signal.signal(signal.SIGUSR1, h)",
        "signal.signal(signal.SIGUSR1, old)",
    ),
    "a log handler": (
        "import logging\nclass H(logging.Handler):\n    def emit(self, r): pass\n"
        "h = H(); logging.getLogger('some.where').addHandler(h)",
        "logging.getLogger('some.where').removeHandler(h)",
    ),
    "a log filter": (
        "import logging\ndef f(record): return True\nlogging.root.addFilter(f)",
        "logging.root.removeFilter(f)",
    ),
    "a hook of warnings": (
        "import warnings, functools\ndef show(*_, **__): pass\nold = warnings.showwarning\n"
        "warnings.showwarning = functools.partial(show)",
        "warnings.showwarning = old",
    ),
    "a profile function": (
        "import sys\nclass P:\n    def hook(self, *_): pass\nsys.setprofile(P().hook)",
        "sys.setprofile(None)",
    ),
    "an import hook": (
        "import sys\nclass F:\n    def find_spec(self, *_): return None\n"
        "f = F(); sys.meta_path.append(f)",
        "sys.meta_path.remove(f)",
    ),
    "a replaced builtin": (
        "import builtins\ndef p(*_): pass\nold = builtins.print; builtins.print = p",
        "builtins.print = old",
    ),
    "a callback of the shell": (
        "def c(*_): pass\nget_ipython().events.register('post_run_cell', c)",
        "get_ipython().events.unregister('post_run_cell', c)",
    ),
}


@pytest.fixture
def shell():
    made = InteractiveShell()
    made.user_ns["__name__"] = "__main__"
    made.user_ns["get_ipython"] = lambda: made
    return made


@pytest.mark.parametrize(("code", "undo"), LEFT.values(), ids=LEFT)
def test_what_runs_beside_the_cells_is_seen(code, undo, shell):
    bystanders = Bystanders(shell)
    space = shell.user_ns

    exec("x = 1\ndef f(): return x\nimport json", space)
    assert not bystanders.may_run()
    exec(code, space)
    try:
        assert bystanders.may_run()
    finally:
        exec(undo, space)
    assert not bystanders.may_run()
