"""For processes that are cellrail's alone: the command line, workers, what answers panels.

`nbformat` imports `jsonschema`, and that imports `rfc3987_syntax` where it is installed (JupyterLab
brings it), which builds a grammar for seconds before anything else begins. No notebook needs it: it
checks texts whose format is `iri`. So here it counts as not installed while `jsonschema` is
imported. In a process of somebody else's nothing is changed: their schemas may need it.
"""

from __future__ import annotations

import sys
from importlib import import_module, util

_SLOW = "rfc3987_syntax"


def begin_quickly() -> None:
    """Have `jsonschema` imported without its slowest part, when it is."""
    if "jsonschema" not in sys.modules and _SLOW not in sys.modules and util.find_spec(_SLOW):
        sys.meta_path.insert(0, _WithoutSlow())


class _WithoutSlow:
    """Finds `jsonschema`'s part on formats, and has it imported without the slow module."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Always None: who comes next finds the module."""
        del path, target
        if name != "jsonschema":
            return
        sys.meta_path.remove(self)
        sys.modules[_SLOW] = None  # type: ignore[assignment]
        try:
            import_module("jsonschema._format")
        finally:
            del sys.modules[_SLOW]
