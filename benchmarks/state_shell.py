"""What every method is measured with: a shell, the memory of the process, and what is wrong.

Runs under the interpreter of any method, so it needs IPython, numpy and pandas only.
"""

from __future__ import annotations

import hashlib
import os
import types
from pathlib import Path
from typing import Any

from state_cells import FACTS

MB = 1e6
_SHELLS_OWN = {"In", "Out", "get_ipython", "exit", "quit", "open", "kishu", "init_kishu"}


def shell() -> Any:
    """An IPython shell without a front end."""
    from IPython.core.interactiveshell import InteractiveShell

    made = InteractiveShell.instance()
    made.user_ns["__name__"] = "__main__"
    return made


def cell(ip: Any, source: str) -> None:
    """Execute a cell; its failure is ours."""
    ip.run_cell(source, store_history=True).raise_error()


def import_libraries() -> None:
    """Import what the stored values need: importing is no part of a restore."""
    import pandas  # noqa: F401, ICN001
    import sklearn.ensemble  # noqa: F401


class Memory:
    """The most memory of this process since one last asked (Linux; elsewhere always 0).

    The system keeps the count: a thread that samples sees nothing while C code holds the GIL.
    """

    def forget(self) -> None:
        """Start counting at what is held now."""
        if Path("/proc/self/clear_refs").exists():
            Path("/proc/self/clear_refs").write_text("5")

    def peak(self) -> int:
        """Bytes held at most since `forget`."""
        return self._status("VmHWM")

    def now(self) -> int:
        """Bytes held."""
        return self._status("VmRSS")

    @staticmethod
    def _status(field: str) -> int:
        status = Path("/proc/self/status")
        if not status.exists():
            return 0
        line = next(x for x in status.read_text().splitlines() if x.startswith(field))
        return int(line.split()[1]) * 1024


def written(path: Path) -> int:
    """Make a file durable; how long it is."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return path.stat().st_size


# --- right and wrong -------------------------------------------------------------------------


def names(ip: Any) -> list[str]:
    """The names that the cells made."""
    found = [n for n in ip.user_ns if not n.startswith("_") and n not in _SHELLS_OWN]
    return sorted(n for n in found if not isinstance(ip.user_ns[n], types.ModuleType))


def prints(ip: Any) -> dict[str, str]:
    """A digest of each value, the same in every process that holds an equal one."""
    return {name: _print(ip.user_ns[name]) for name in names(ip)}


def _print(value: Any) -> str:
    import numpy as np
    import pandas as pd

    told = [type(value).__name__]
    if isinstance(value, pd.DataFrame):
        told += [f"{name}={_print(value[name])}" for name in value.columns]
    elif isinstance(value, pd.Series):
        told += [str(value.dtype), _digest(pd.util.hash_pandas_object(value).to_numpy())]
    elif isinstance(value, np.ndarray):
        told += [str(value.dtype), str(value.shape), _digest(np.ascontiguousarray(value))]
    elif isinstance(value, np.random.Generator):
        told.append(repr(value.bit_generator.state))
    elif isinstance(value, (type, types.FunctionType)):
        told.append(value.__qualname__)
    elif hasattr(value, "predict"):
        told.append(_print(value.predict(np.linspace(0, 1, 500).reshape(100, 5))))
    else:
        told.append(_digest(repr(value).encode()))
    return _digest(" ".join(told).encode())


def _digest(data: Any) -> str:
    return hashlib.blake2b(data, digest_size=12).hexdigest()


def wrong(ip: Any, expected: dict[str, str]) -> list[str]:
    """What of the namespace is not as it was in the process that was not interrupted."""
    found: list[str] = []
    now = names(ip)
    found += [f"{name} is missing" for name in sorted(expected.keys() - set(now))]
    found += [f"{name} should not be there" for name in sorted(set(now) - expected.keys())]
    for name in sorted(expected.keys() & set(now)):
        try:
            if _print(ip.user_ns[name]) != expected[name]:
                found.append(f"{name} has another value")
        except Exception as error:  # noqa: BLE001 - a value that cannot be used
            found.append(f"{name}: {type(error).__name__}")
    for told, source in FACTS.items():
        try:
            holds = eval(source, ip.user_ns)
        except Exception:  # noqa: BLE001 - nor can it hold
            holds = False
        if not holds:
            found.append(f"not true: {told}")
    return found
