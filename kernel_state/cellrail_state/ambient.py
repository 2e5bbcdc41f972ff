"""The state of a kernel beside its variables, as a JSON-able snapshot.

This list is the guarantee:

* generators: `random`'s global one, NumPy's legacy global one, torch's CPU one;
* the working directory, `sys.path`, changes of the environment since the kernel started
  (values only where neither name nor value looks like a secret; others by name, *not covered*);
* modules imported since the kernel started that can be imported by name, in order;
* the recursion limit, `warnings.filters` (those of builtin and importable categories), the
  `decimal` context, the locale, levels of loggers and what they are told to ignore;
* options that differ from their defaults: pandas, NumPy (`printoptions`, `seterr`), matplotlib's
  `rcParams` (not the backend).

Not covered: signal and exit handlers, handlers of loggers, threads, open files, GPU generators.

`apply` puts back paths, environment, directory, modules and options; `apply_generators` comes
last, after the values were loaded, because loading may draw numbers. What cannot be put back is
a warning in the returned list, never an exception.
"""

from __future__ import annotations

import base64
import contextlib
import decimal
import importlib
import importlib.util
import json
import locale
import logging
import os
import pathlib
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import msgspec

from .model import ObjectRef

_SECRET_LIKE = ("KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "AUTH", "PASS")
_OURS = ("cellrail", "cellrail_state")
_MINIMUM = 8


class Store(Protocol):
    """Where objects go."""

    def put(self, data: Any) -> ObjectRef:
        """Keep bytes; returns their address."""
        ...


class Base(msgspec.Struct, frozen=True, kw_only=True):
    """What the kernel was like when it started."""

    environment: dict[str, str]
    modules: frozenset[str]

    @staticmethod
    def now() -> Base:
        """The kernel as it is."""
        return Base(environment=dict(os.environ), modules=frozenset(sys.modules))


class Ambient:
    """Takes snapshots; `capture` writes one only if something changed."""

    def __init__(self, base: Base, secrets: Sequence[str] = ()) -> None:
        self._base = base
        self._secrets = [secret for secret in secrets if len(secret) >= _MINIMUM]
        self._raw: tuple[Any, ...] | None = None
        self._last: bytes | None = None
        self._importable: dict[str, bool] = {}

    def learn(self, secrets: Sequence[str]) -> None:
        """Nothing that is captured from now on holds these secrets."""
        self._secrets += [secret for secret in secrets if len(secret) >= _MINIMUM]

    def snapshot(self) -> dict[str, Any]:
        """The whole state, JSON-able."""
        made: dict[str, Any] = {
            "cwd": _cwd(),
            "path": [entry for entry in sys.path if self._is_told(entry)],
            **self._environment(),
            "modules": self._modules(),
            "recursion_limit": sys.getrecursionlimit(),
            "warnings": list(_warning_filters()),
            "decimal": _decimal(),
            "logging": _loggers(),
            "locale": locale.setlocale(locale.LC_ALL),
        }
        for name in _OPTIONS:
            found = _read(name)
            if found is not None:
                made[name] = found
        made["generators"] = _generators()
        return made

    def capture(self, store: Store) -> ObjectRef | None:
        """Write a snapshot; None where nothing changed since the last one."""
        raw = self._cheap()
        if raw == self._raw:
            return None
        self._raw = raw
        data = json.dumps(self.snapshot(), sort_keys=True).encode()
        if data == self._last:
            return None
        self._last = data
        return store.put(data)

    def adopt(self) -> None:
        """After a restore: what is now is what was stored last."""
        self._raw = self._cheap()
        self._last = json.dumps(self.snapshot(), sort_keys=True).encode()

    def _cheap(self) -> tuple[Any, ...]:
        """A value that changes when a snapshot would; costs microseconds, not milliseconds."""
        np, mpl = sys.modules.get("numpy"), sys.modules.get("matplotlib")
        pandas = sys.modules.get("pandas._config.config")
        torch = sys.modules.get("torch")
        return (
            random.getstate(),
            _legacy_state(np) if np is not None else None,
            bytes(torch.get_rng_state().numpy()) if torch is not None else None,
            _cwd(),
            tuple(map(str, sys.path)),
            dict(os.environ),
            len(sys.modules),
            sys.getrecursionlimit(),
            tuple(warnings.filters),
            repr(decimal.getcontext()),
            _loggers(),
            locale.setlocale(locale.LC_ALL),
            repr((np.get_printoptions(), np.geterr())) if np is not None else None,
            repr(getattr(pandas, "_global_config", None)) if pandas is not None else None,
            dict(dict.items(mpl.rcParams)) if mpl is not None and _rc_ready(mpl) else None,
            *(repr(_read(name)) for name in ("matplotlib.colors", "sklearn")),
        )

    def _environment(self) -> dict[str, Any]:
        before, now = self._base.environment, dict(os.environ)
        changed = {name: value for name, value in now.items() if before.get(name) != value}
        shown = {n: v for n, v in changed.items() if not self._is_secret(n, v)}
        return {
            "environment": shown,
            "environment_removed": sorted(before.keys() - now.keys()),
            "environment_not_covered": sorted(changed.keys() - shown.keys()),
        }

    def _is_secret(self, name: str, value: str) -> bool:
        if any(word in name.upper() for word in _SECRET_LIKE):
            return True
        return any(secret in value for secret in self._secrets)

    def _is_told(self, entry: object) -> bool:
        return isinstance(entry, str) and not any(secret in entry for secret in self._secrets)

    def _modules(self) -> list[str]:
        return [
            name
            for name, module in list(sys.modules.items())
            if name not in self._base.modules and module is not None and self._can_import(name)
        ]

    def _can_import(self, name: str) -> bool:
        known = self._importable.get(name)
        if known is None:
            spec = getattr(sys.modules[name], "__spec__", None)
            known = (
                spec is not None
                and getattr(spec, "name", None) == name
                and name.partition(".")[0] not in _OURS
                and (spec.has_location or spec.origin in {"built-in", "frozen"})
            )
            self._importable[name] = known
        return known


# --- reading ---------------------------------------------------------------------------------


def _cwd() -> str:
    try:
        return str(pathlib.Path.cwd())
    except OSError:  # it was deleted
        return ""


def _words(values: Sequence[int]) -> str:
    data = b"".join(int(v).to_bytes(4, "little") for v in values)
    return base64.b64encode(data).decode()


def _legacy_state(np: Any) -> tuple[Any, ...]:
    state = np.random.get_state(legacy=False)
    inner = state["state"]
    key = inner.get("key")
    packed = key.tobytes() if key is not None else repr(inner)
    return (
        state["bit_generator"],
        packed,
        inner.get("pos"),
        state.get("has_gauss"),
        state.get("gauss"),
    )


def _generators() -> dict[str, Any]:
    version, words, gauss = random.getstate()
    made: dict[str, Any] = {
        "random": {"version": version, "state": _words(words), "gauss": gauss},
    }
    np, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if np is not None:
        kind, packed, position, has_gauss, normal = _legacy_state(np)
        if isinstance(packed, bytes):
            made["numpy"] = {
                "kind": kind,
                "state": base64.b64encode(packed).decode(),
                "position": int(position),
                "has_gauss": int(has_gauss),
                "gauss": float(normal),
            }
    if torch is not None:
        state = bytes(torch.get_rng_state().numpy())
        made["torch"] = base64.b64encode(state).decode()
    return made


def _warning_filters() -> Iterator[list[Any]]:
    for action, message, category, module, line in warnings.filters:
        if not isinstance(category, type):
            continue
        where = f"{category.__module__}:{category.__qualname__}"
        if category.__module__ != "__main__":
            yield [action, _pattern(message), where, _pattern(module), line]


def _pattern(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    return {"pattern": value.pattern, "flags": value.flags}


def _loggers() -> dict[str, list[Any]]:
    """Level, `disabled` and `propagate` of the loggers where they are not as created."""
    root = logging.getLogger()
    made: dict[str, list[Any]] = {"": [root.level, root.disabled, True]}
    for name, logger in list(root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger):
            state = [logger.level, logger.disabled, logger.propagate]
            if state != [logging.NOTSET, False, True]:
                made[name] = state
    return made


def _put_loggers(state: Mapping[str, Sequence[Any]]) -> None:
    for name, (level, disabled, propagate) in state.items():
        logger = logging.getLogger(name or None)
        logger.setLevel(level)
        logger.disabled, logger.propagate = disabled, propagate


def _decimal() -> dict[str, Any]:
    context = decimal.getcontext()
    return {
        "prec": context.prec,
        "rounding": context.rounding,
        "Emin": context.Emin,
        "Emax": context.Emax,
        "capitals": context.capitals,
        "clamp": context.clamp,
        "traps": sorted(signal.__name__ for signal, on in context.traps.items() if on),
    }


def _plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))


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
        if value is not option.defval and value != option.defval and _plain(value):
            made[key] = value
    return made


def _numpy_options(np: Any) -> dict[str, Any]:
    shown = {k: v for k, v in np.get_printoptions().items() if _plain(v)}
    return {"printoptions": shown, "errors": dict(np.geterr())}


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


def _colour_codes(colors: Any) -> dict[str, Any]:
    """One-letter colours that somebody redefined (seaborn does)."""
    base, now = getattr(colors, "BASE_COLORS", {}), getattr(colors, "_colors_full_map", {})
    return {code: list(now[code]) for code in base if now.get(code, base[code]) != base[code]}


def _sklearn_options(sklearn: Any) -> dict[str, Any]:
    return {key: value for key, value in sklearn.get_config().items() if _plain(value)}


_OPTIONS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "numpy": _numpy_options,
    "pandas": _pandas_options,
    "matplotlib": _matplotlib_options,
    "matplotlib.colors": _colour_codes,
    "sklearn": _sklearn_options,
}


def _read(name: str) -> dict[str, Any] | None:
    """A library's options; None where it is not imported, or does not tell."""
    module = sys.modules.get(name)
    if module is None:
        return None
    try:
        return _OPTIONS[name](module)
    except Exception:  # noqa: BLE001 - half imported
        return None


# --- putting back ----------------------------------------------------------------------------


def apply(snapshot: Mapping[str, Any]) -> list[str]:
    """Put everything back but the generators; returns what could not be.

    Order: `sys.path`, environment, working directory, modules, options.
    """
    problems: list[str] = []
    sys.path[:] = snapshot.get("path", sys.path)
    for name in snapshot.get("environment_removed", ()):
        os.environ.pop(name, None)
    os.environ.update(snapshot.get("environment", {}))
    cwd = snapshot.get("cwd")
    if cwd:
        _try(problems, f"the working directory {cwd!r}", lambda: os.chdir(cwd))
    for name in snapshot.get("modules", ()):
        if name not in sys.modules:
            _try(problems, f"the module {name!r}", partial(importlib.import_module, name))
    for what, put in _PUT.items():
        if what in snapshot:
            _try(problems, what, partial(put, snapshot[what]))
    return problems


def apply_generators(snapshot: Mapping[str, Any]) -> list[str]:
    """Put the random generators back: the last act of a restore."""
    problems: list[str] = []
    for name, state in snapshot.get("generators", {}).items():
        put = _GENERATORS[name]
        _try(problems, f"the generator of {name}", partial(put, state))
    return problems


@contextlib.contextmanager
def generators_kept() -> Iterator[None]:
    """Whatever draws inside the block has not drawn."""
    state = _generators()
    try:
        yield
    finally:
        apply_generators({"generators": state})


def _try(problems: list[str], what: str, act: Callable[[], object]) -> None:
    try:
        act()
    except Exception as error:  # noqa: BLE001 - a restore goes on
        problems.append(f"{what} could not be put back: {type(error).__name__}: {error}")


def _put_warnings(filters: Sequence[Sequence[Any]]) -> None:
    import re

    def pattern(value: Any) -> Any:
        return re.compile(value["pattern"], value["flags"]) if isinstance(value, dict) else value

    made = []
    for action, message, where, module, line in filters:
        home, _, name = where.partition(":")
        category: Any = importlib.import_module(home)
        for part in name.split("."):
            category = getattr(category, part)
        made.append((action, pattern(message), category, pattern(module), line))
    # through the front door, so that Python notices; then as they were
    warnings.resetwarnings()
    warnings.filters[:] = made  # type: ignore[index]


def _put_decimal(state: Mapping[str, Any]) -> None:
    fields = {k: v for k, v in state.items() if k != "traps"}
    traps = [getattr(decimal, name) for name in state["traps"]]
    decimal.setcontext(decimal.Context(**fields, traps=traps))


def _put_numpy(state: Mapping[str, Any]) -> None:
    np = importlib.import_module("numpy")
    known = np.get_printoptions()
    np.set_printoptions(**{k: v for k, v in state["printoptions"].items() if k in known})
    np.seterr(**state["errors"])


def _put_pandas(state: Mapping[str, Any]) -> None:
    pandas = importlib.import_module("pandas")
    for key, value in state.items():
        pandas.set_option(key, value)


def _put_matplotlib(state: Mapping[str, Any]) -> None:
    mpl = importlib.import_module("matplotlib")
    for key, value in state.items():
        if key == "axes.prop_cycle":
            mpl.rcParams[key] = importlib.import_module("cycler").cycler(**value)
        else:
            mpl.rcParams[key] = value


def _put_colour_codes(state: Mapping[str, Any]) -> None:
    colors = importlib.import_module("matplotlib.colors")
    full = colors.colorConverter.colors
    full.update({code: tuple(value) for code, value in {**colors.BASE_COLORS, **state}.items()})
    full.cache.clear()


def _put_random(state: Mapping[str, Any]) -> None:
    data = base64.b64decode(state["state"])
    words = tuple(int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4))
    random.setstate((state["version"], words, state["gauss"]))


def _put_numpy_generator(state: Mapping[str, Any]) -> None:
    np = importlib.import_module("numpy")
    key = np.frombuffer(base64.b64decode(state["state"]), dtype=np.uint32)
    np.random.set_state((state["kind"], key, state["position"], state["has_gauss"], state["gauss"]))


def _put_torch(state: str) -> None:
    torch = importlib.import_module("torch")
    torch.set_rng_state(torch.frombuffer(bytearray(base64.b64decode(state)), dtype=torch.uint8))


_PUT: dict[str, Callable[[Any], object]] = {
    "recursion_limit": sys.setrecursionlimit,
    "warnings": _put_warnings,
    "decimal": _put_decimal,
    "logging": _put_loggers,
    "locale": lambda name: locale.setlocale(locale.LC_ALL, name),
    "numpy": _put_numpy,
    "pandas": _put_pandas,
    "matplotlib": _put_matplotlib,
    "matplotlib.colors": _put_colour_codes,
    "sklearn": lambda state: importlib.import_module("sklearn").set_config(**state),
}
_GENERATORS: dict[str, Callable[[Any], object]] = {
    "random": _put_random,
    "numpy": _put_numpy_generator,
    "torch": _put_torch,
}
