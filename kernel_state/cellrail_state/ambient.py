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

Here stands what belongs to the process: paths, environment, directory, modules. `randomness`,
`interpreter` and `libraries` each read their part of a snapshot (`read`), tell at little cost
whether it can have changed (`cheap`), and put it back (`PUT`).
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import msgspec

from . import interpreter, libraries, randomness
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
    #: whether other modules can be imported by name, as far as that is known
    importable: dict[str, bool] = {}

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
        self._importable = dict(base.importable)

    def learn(self, secrets: Sequence[str]) -> None:
        """Nothing that is captured from now on holds these secrets."""
        self._secrets += [secret for secret in secrets if len(secret) >= _MINIMUM]

    def snapshot(self) -> dict[str, Any]:
        """The whole state, JSON-able."""
        return {
            "cwd": _cwd(),
            "path": [entry for entry in sys.path if self._is_told(entry)],
            **self._environment(),
            "modules": self._modules(),
            **interpreter.read(),
            **libraries.read(),
            "generators": randomness.read(),
        }

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

    def apply(self, snapshot: Mapping[str, Any]) -> list[str]:
        """Put everything back but the generators, in a process that may have gone on since.

        Returns:
            What could not be put back.
        """
        self._forget(snapshot)
        return apply(snapshot)

    def _forget(self, snapshot: Mapping[str, Any]) -> None:
        """Undo changes of the environment since the kernel started that are in no snapshot."""
        if "environment" not in snapshot:
            return
        parts = ("environment", "environment_removed", "environment_not_covered")
        told = {name for part in parts for name in snapshot.get(part, ())}
        base = self._base.environment
        for name in {*base, *os.environ} - told:
            if name not in base:
                os.environ.pop(name, None)
            elif os.environ.get(name) != base[name]:
                os.environ[name] = base[name]

    def adopt(self) -> None:
        """After a restore: what is now is what was stored last."""
        self._raw = self._cheap()
        self._last = json.dumps(self.snapshot(), sort_keys=True).encode()

    def _cheap(self) -> tuple[Any, ...]:
        """A value that changes when a snapshot would; costs microseconds, not milliseconds."""
        return (
            *randomness.cheap(),
            _cwd(),
            tuple(map(str, sys.path)),
            dict(os.environ),
            len(sys.modules),
            *interpreter.cheap(),
            *libraries.cheap(),
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
            known = self._importable[name] = can_import(name)
        return known


#: what `settings` calls the working directory
FOLDER = "the working directory"


def settings() -> dict[str, Any]:
    """What is set of the process, but for generators and modules, by what a person calls it."""
    return {
        FOLDER: _cwd(),
        "`sys.path`": [str(entry) for entry in sys.path],
        "`os.environ`": dict(os.environ),
        **{f"the setting of {name.replace('_', ' ')}": v for name, v in interpreter.read().items()},
        **{f"the options of {name}": v for name, v in libraries.read().items()},
    }


def can_import(name: str) -> bool:
    """Whether a module that is imported can be imported by its name in another process."""
    spec = getattr(sys.modules[name], "__spec__", None)
    return (
        spec is not None
        and getattr(spec, "name", None) == name
        and name.partition(".")[0] not in _OURS
        and (spec.has_location or spec.origin in {"built-in", "frozen"})
    )


def _cwd() -> str:
    try:
        return str(pathlib.Path.cwd())
    except OSError:  # it was deleted
        return ""


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
    for what, put in {**interpreter.PUT, **libraries.PUT}.items():
        if what in snapshot:
            _try(problems, what, partial(put, snapshot[what]))
    return problems


def apply_generators(snapshot: Mapping[str, Any]) -> list[str]:
    """Put the random generators back: the last act of a restore."""
    problems: list[str] = []
    for name, state in snapshot.get("generators", {}).items():
        put = randomness.PUT[name]
        _try(problems, f"the generator of {name}", partial(put, state))
    return problems


def spread_generators(word: str) -> None:
    """Have the generators go on differently for each word, the same for equal words and states."""
    for name, state in randomness.read().items():
        text = json.dumps([name, state, word], sort_keys=True).encode()
        randomness.SEED[name](hashlib.blake2b(text, digest_size=32).digest())


@contextlib.contextmanager
def generators_kept() -> Iterator[None]:
    """Whatever draws inside the block has not drawn."""
    state = randomness.read()
    try:
        yield
    finally:
        apply_generators({"generators": state})


def _try(problems: list[str], what: str, act: Callable[[], object]) -> None:
    try:
        act()
    except Exception as error:  # noqa: BLE001 - a restore goes on
        problems.append(f"{what} could not be put back: {type(error).__name__}: {error}")
