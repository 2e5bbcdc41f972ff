"""Options of libraries, read and put back: only those that differ from their defaults.

Only of libraries that are imported: nothing here imports one to look at it.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def read() -> dict[str, dict[str, Any]]:
    """The options of every library that is imported, JSON-able, under the names of `PUT`."""
    found = {name: _read_one(name) for name in _READ}
    return {name: options for name, options in found.items() if options is not None}


def cheap() -> tuple[Any, ...]:
    """A value that changes when the options do; costs microseconds, not milliseconds."""
    np, mpl = sys.modules.get("numpy"), sys.modules.get("matplotlib")
    pandas = sys.modules.get("pandas._config.config")
    return (
        repr((np.get_printoptions(), np.geterr())) if np is not None else None,
        repr(getattr(pandas, "_global_config", None)) if pandas is not None else None,
        dict(dict.items(mpl.rcParams)) if mpl is not None and _rc_ready(mpl) else None,
        *(repr(_read_one(name)) for name in ("matplotlib.colors", "sklearn")),
    )


def _plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))


def _written(value: Any) -> Any:
    """A setting as JSON. Of functions the common one is kept: `"{:.2f}".format`."""
    if not callable(value):
        return value
    if isinstance(value, types.BuiltinMethodType) and value.__name__ == "format":
        text = value.__self__
        if type(text) is str:
            return {"$format": text}
    return {"$function": str(getattr(value, "__qualname__", type(value).__qualname__))}


def _read_back(value: Any) -> Any:
    if isinstance(value, dict) and "$format" in value:
        return value["$format"].format
    return value


def _is_function(value: Any) -> bool:
    return isinstance(value, dict) and "$function" in value


def _refuse_functions(names: Sequence[str]) -> None:
    """Say which settings stay as they are: a function cannot be kept here."""
    if names:
        message = f"{', '.join(names)}: set to a function; set it again"
        raise ValueError(message)


def _numpy_options(np: Any) -> dict[str, Any]:
    options = np.get_printoptions()
    shown = {k: v for k, v in options.items() if _plain(v)}
    if options.get("formatter"):
        shown["formatter"] = {k: _written(v) for k, v in options["formatter"].items()}
    return {"printoptions": shown, "errors": dict(np.geterr())}


def _put_numpy(state: Mapping[str, Any]) -> None:
    np = importlib.import_module("numpy")
    known = np.get_printoptions()
    options = {k: v for k, v in state["printoptions"].items() if k in known}
    functions = options.pop("formatter", None) or {}
    formats = {k: _read_back(v) for k, v in functions.items() if not _is_function(v)}
    np.set_printoptions(**options, formatter=formats or None)
    np.seterr(**state["errors"])
    _refuse_functions([f"formatter of {k}" for k, v in functions.items() if _is_function(v)])


def _pandas_options(_: Any) -> dict[str, Any]:
    config = importlib.import_module("pandas._config.config")
    registered = config._registered_options  # noqa: SLF001 - there is no public list of defaults
    deprecated = config._deprecated_options  # noqa: SLF001
    made: dict[str, Any] = {}
    for key, option in registered.items():
        if key in deprecated:
            continue
        value: Any = config._global_config  # noqa: SLF001
        for part in key.split("."):
            value = value[part]
        if value is option.defval or value == option.defval:
            continue
        if _plain(value) or callable(value):
            made[key] = _written(value)
    return made


def _put_pandas(state: Mapping[str, Any]) -> None:
    pandas = importlib.import_module("pandas")
    for key, value in state.items():
        if not _is_function(value):
            pandas.set_option(key, _read_back(value))
    _refuse_functions([key for key, value in state.items() if _is_function(value)])


def _rc_ready(mpl: Any) -> bool:
    return hasattr(mpl, "rcParams") and hasattr(mpl, "rcParamsDefault")


def _matplotlib_options(mpl: Any) -> dict[str, Any]:
    if not _rc_ready(mpl):
        return {}
    made = {}
    for key, value in dict.items(mpl.rcParams):
        if key.startswith("backend") or dict.get(mpl.rcParamsDefault, key) == value:
            continue
        if key == "axes.prop_cycle":
            made[key] = {k: list(v) for k, v in value.by_key().items()}
        elif _plain(value):
            made[key] = value
    return made


def _put_matplotlib(state: Mapping[str, Any]) -> None:
    mpl = importlib.import_module("matplotlib")
    for key, value in state.items():
        if key == "axes.prop_cycle":
            mpl.rcParams[key] = importlib.import_module("cycler").cycler(**value)
        else:
            mpl.rcParams[key] = value


def _colour_codes(colors: Any) -> dict[str, Any]:
    """One-letter colours that somebody redefined (seaborn does)."""
    base, now = getattr(colors, "BASE_COLORS", {}), getattr(colors, "_colors_full_map", {})
    return {code: list(now[code]) for code in base if now.get(code, base[code]) != base[code]}


def _put_colour_codes(state: Mapping[str, Any]) -> None:
    colors = importlib.import_module("matplotlib.colors")
    full = colors.colorConverter.colors
    full.update({code: tuple(value) for code, value in {**colors.BASE_COLORS, **state}.items()})
    full.cache.clear()


def _sklearn_options(sklearn: Any) -> dict[str, Any]:
    return {key: value for key, value in sklearn.get_config().items() if _plain(value)}


def _read_one(name: str) -> dict[str, Any] | None:
    """A library's options; None where it is not imported, or does not tell."""
    module = sys.modules.get(name)
    if module is None:
        return None
    try:
        return _READ[name](module)
    except Exception:  # noqa: BLE001 - half imported
        return None


_READ: dict[str, Callable[[Any], dict[str, Any]]] = {
    "numpy": _numpy_options,
    "pandas": _pandas_options,
    "matplotlib": _matplotlib_options,
    "matplotlib.colors": _colour_codes,
    "sklearn": _sklearn_options,
}
#: puts a library's options back, by name, in this order
PUT: dict[str, Callable[[Any], object]] = {
    "numpy": _put_numpy,
    "pandas": _put_pandas,
    "matplotlib": _put_matplotlib,
    "matplotlib.colors": _put_colour_codes,
    "sklearn": lambda state: importlib.import_module("sklearn").set_config(**state),
}
