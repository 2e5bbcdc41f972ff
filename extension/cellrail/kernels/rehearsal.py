"""What every kernel would make of the same in its first cells, made once, before the fork.

Captures judge the types, modules and functions that they meet, and remember that for the process;
libraries import what they use late; Python adapts its bytecode to what a function is called with.
In a fork all that happens anew for each kernel, in the few milliseconds that a short cell takes. So
a scratch namespace with what most notebooks hold is captured in the process that is forked, into a
folder that is removed at once. Nothing of the user's is in it, nothing of it is in a kernel's
namespace, and nothing is computed that a library could start threads for.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

#: what the first cell, the loop around it and the first display of a frame import
_LATE = ("IPython.core.logger", "tornado.platform.asyncio")
_LATE_OF_PANDAS = ("pandas.io.formats.string",)


def rehearse(app: Any, tops: Collection[str]) -> None:
    """Have it made; nobody sees.

    Args:
        app: the kernel's application.
        tops: top-level modules that were imported ahead.
    """
    from cellrail_state import packing, reach
    from cellrail_state.inspection import package_version

    app.shell.display_formatter.format(0)
    for top in tops:
        # indexes the folders that distributions are installed in
        package_version(top)
    # knows the folders that Python's own modules lie in
    reach.is_local(sys.modules[__name__])
    for name in (*_LATE, *(_LATE_OF_PANDAS if "pandas" in tops else ())):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    packing.ready()
    # where that fails, each kernel does what it would have made
    with contextlib.suppress(Exception):
        capture_scratch()


def capture_scratch() -> None:
    """Capture a scratch namespace twice: when it is new, and when it has changed."""
    from cellrail_state.capture import Capture
    from cellrail_state.objects import Objects

    with tempfile.TemporaryDirectory(prefix="cellrail-") as folder:
        objects = Objects(Path(folder))
        space = _things()
        capture = Capture(objects, globals=space)
        capture.checkpoint(space)
        space["count"], space["text"] = 2, "other"
        if "frame" in space:
            space["frame"]["more"] = 1
            space["frame"]._repr_html_()
        capture.look_before(space, {"frame", "numbers"})
        capture.checkpoint(space, touched={"frame", "count", "text"}, audit=False)
        objects.flush()


def _things() -> dict[str, Any]:
    numpy, pandas = sys.modules.get("numpy"), sys.modules.get("pandas")
    things: dict[str, Any] = {"count": 1, "text": "some", "items": [1, "a"], "named": {"a": 1.5}}
    if numpy is not None:
        things |= {"np": numpy, "numbers": numpy.arange(9)}
    if pandas is not None:
        frame = pandas.DataFrame({"a": [1, 2], "b": ["x", "y"], "c": [0.5, 1.5]})
        frame["day"] = pandas.Timestamp("2013-01-01")
        things |= {"pd": pandas, "frame": frame}
    return things
