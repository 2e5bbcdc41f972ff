"""Which names of a namespace are the user's, and how a value is told to a person.

Nothing here runs code of the notebook: no `__repr__`, no `__len__` of its classes. A value that
cannot be described has an empty preview; describing never raises.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from typing import Any

#: where Python remembers which warnings it has shown: no value of the user's
WARNED = "__warningregistry__"
#: names that give code the whole namespace
WHOLE = frozenset(
    ("exec", "eval", "globals", "locals", "vars", "dir", "get_ipython", "__import__", "Out", "_oh")
)
#: attributes through which code gets at it
INSIDES = frozenset({"f_globals", "f_locals", "f_back", "__globals__", "user_ns", "currentframe"})
#: functions that look names up by texts, or by what they load, wherever these come from
LOOK_UP = frozenset(
    ("query", "eval", "sql", "SQLContext", "execute", "loads", "load", "read_pickle", "Unpickler",
     "testmod", "testfile", "main", "runctx", "run_path", "run_module", "run_cell", "ex", "ev",
     "timeit", "repeat", "getmodule", "getclosurevars", "stack", "instance", "__subclasses__",
     "import_module", "get_objects", "get_referrers")
)  # fmt: skip
_MAX = 80
_PLAIN = frozenset({bool, int, float, complex, str, bytes, type(None), type(Ellipsis)})
_SIZED = frozenset({list, tuple, dict, set, frozenset, bytearray, range})


def user_names(namespace: Mapping[Any, object], hidden: Collection[str] = ()) -> dict[str, object]:
    """The user's part of a namespace.

    Args:
        namespace: the live globals.
        hidden: names that belong to the shell.

    Returns:
        A new dict, in the namespace's order, of names that are strings and not hidden.
    """
    return {
        name: value
        for name, value in namespace.items()
        if type(name) is str and name not in hidden and not _is_dunder(name)
    }


def _is_dunder(name: str) -> bool:
    # `__` and `___` are IPython's, or names like any other
    return len(name) > 4 and name.startswith("__") and name.endswith("__")


def type_name(kind: type) -> str:
    """The shortest public name of a type: `int`, `pandas.DataFrame`, `Point` of the notebook."""
    try:
        module, name = str(kind.__module__), str(kind.__qualname__)
    except Exception:  # noqa: BLE001 - a metaclass may do anything
        return "?"
    if module in {"builtins", "__main__"}:
        return name
    parts = module.split(".")
    for depth in range(1, len(parts)):
        prefix = ".".join(parts[:depth])
        if vars(sys.modules.get(prefix, sys)).get(name) is kind:
            return f"{prefix}.{name}"
    return f"{module}.{name}"


def preview(value: object) -> str:
    """One short line (80 characters at most): shape, length, or the value of an atom."""
    try:
        text = _describe(value)
    except Exception:  # noqa: BLE001 - a preview is never worth a failure
        return ""
    text = " ".join(text.split())
    return text if len(text) <= _MAX else text[: _MAX - 1] + "…"


def _describe(value: Any) -> str:  # noqa: PLR0911 - one line per kind
    kind = type(value)
    if kind in _PLAIN:
        if kind in {str, bytes}:
            return repr(value[: _MAX + 1])
        if kind is int and value.bit_length() > 256:
            return f"{value.bit_length()} bits"
        return repr(value)
    if kind in _SIZED:
        return f"{len(value)} item{'' if len(value) == 1 else 's'}"
    if isinstance(value, type):
        return f"class {type_name(value)}"
    module = str(kind.__module__)
    top = module.partition(".")[0]
    if top in {"numpy", "pandas", "scipy", "torch", "polars"}:
        shape = getattr(value, "shape", None)
        if isinstance(shape, tuple) and shape:
            text = " x ".join(str(int(n)) for n in shape)
            dtype = getattr(value, "dtype", None)
            return f"{text} {dtype}" if dtype is not None else f"{text} table"
        return repr(value) if isinstance(shape, tuple) else ""
    if top in {"datetime", "decimal", "fractions", "pathlib", "uuid"}:
        return repr(value)
    if kind.__name__ == "module":
        return f"module {value.__name__}"
    if module in {"builtins", "functools"}:
        name = getattr(value, "__qualname__", None)
        return f"{kind.__name__} {name}" if type(name) is str else ""
    return ""
