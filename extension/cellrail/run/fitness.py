"""Whether a kernel that has served one item of a parallel loop may serve another.

Its namespace is put back from the checkpoint, as in a fresh kernel; what a fresh kernel would not
have is looked for here: settings and environment that the item changed and that no checkpoint
takes back, code that still runs, and what it left in local modules. Library modules that the item
imported do not count.
"""

from __future__ import annotations

import pickle
import sys
import sysconfig
from collections.abc import Mapping
from typing import Any

import blake3

from cellrail.run.busy import Bystanders
from cellrail_state.ambient import Ambient
from cellrail_state.namespace import WARNED

#: parts of a snapshot that a kernel may have more of than a fresh one
_HARMLESS = frozenset({"modules", "environment_not_covered"})
_PLAIN = (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, type(None))
_OURS = ("cellrail", "cellrail_state")


class Fitness:
    """Knows what local modules held when the first item began."""

    def __init__(self, ambient: Ambient, bystanders: Bystanders) -> None:
        self._ambient, self._bystanders = ambient, bystanders
        self._modules: dict[str, dict[str, object]] | None = None

    def faults(self, wanted: Mapping[str, Any]) -> list[str]:
        """What is not as in a fresh kernel, in words; empty for a fit one, and the first time.

        Args:
            wanted: the snapshot of the checkpoint that was just restored.
        """
        modules = _local_modules()
        first, self._modules = self._modules is None, self._modules or modules
        if first:
            return []
        now = self._ambient.snapshot()
        names = (wanted.keys() | now.keys()) - _HARMLESS
        faults = [name for name in sorted(names) if wanted.get(name) != now.get(name)]
        if self._bystanders.may_run():
            faults.append("code beside its cells")
        changed = [name for name, held in modules.items() if held != self._modules.get(name)]
        return [*faults, *(f"the local module {name}" for name in changed)]


def _local_modules() -> dict[str, dict[str, object]]:
    """What each local module holds: plain values by content, others by identity."""
    paths = sysconfig.get_paths()
    installed = tuple({paths["stdlib"], paths["platstdlib"], paths["purelib"], paths["platlib"]})
    found = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not isinstance(file, str) or name.partition(".")[0] in _OURS:
            continue
        if not file.startswith(installed) and "site-packages" not in file:
            held = list(vars(module).items())
            found[name] = {key: _token(value) for key, value in held if key != WARNED}
    return found


def _token(value: object) -> object:
    if type(value) in _PLAIN:
        try:
            return blake3.blake3(pickle.dumps(value)).digest()
        except Exception:  # noqa: BLE001 - what cannot be told by its content is told by itself
            return id(value)
    return id(value)
