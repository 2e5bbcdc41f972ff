"""Capture and restore for one IPython shell, headless or live."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import msgspec

from cellrail.run import shellspace
from cellrail.run.setup import run_setup_line
from cellrail_state import ambient
from cellrail_state.capture import Capture, Limits
from cellrail_state.errors import StateError
from cellrail_state.inspection import package_version
from cellrail_state.model import Checkpoint, Delta, ObjectRef, from_plain, to_plain
from cellrail_state.objects import Objects
from cellrail_state.restore import incompatibilities, restore


class ShellState:
    """The checkpoints of one shell's namespace."""

    def __init__(
        self,
        shell: Any,
        objects: Objects,
        *,
        base: ambient.Base,
        limits: Limits | None = None,
        secrets: Collection[str] = (),
    ) -> None:
        self._shell = shell
        self._objects = objects
        self._ambient = ambient.Ambient(base, secrets=tuple(secrets))
        self._capture = Capture(
            objects,
            globals=shell.user_ns,
            ambient=self._ambient.capture,
            limits=limits or Limits(),
            secrets=tuple(secrets),
        )
        self._definitions: dict[str, Any] = {}
        self._restored: Checkpoint | None = None
        self._placed: dict[str, object] = {}

    @classmethod
    def from_settings(
        cls, shell: Any, base: ambient.Base, settings: Mapping[str, Any]
    ) -> ShellState:
        """What a driver's settings ask for.

        Args:
            shell: the IPython shell.
            base: the process as it was before any code of the user ran.
            settings: `objects`, `limits` and `secrets`.
        """
        return cls(
            shell,
            Objects(Path(settings["objects"])),
            base=base,
            limits=msgspec.convert(settings.get("limits", {}), Limits),
            secrets=tuple(settings.get("secrets", ())),
        )

    def capture(self, *, only: Collection[str] | None = None) -> dict[str, Any]:
        """Checkpoint the namespace; the delta as plain data. Never raises for a value's sake."""
        plain: dict[str, Any] = to_plain(self.delta(only=only))
        return plain

    def delta(self, *, only: Collection[str] | None = None) -> Delta:
        """Checkpoint the namespace."""
        try:
            roots = shellspace.capture_roots(self._shell)
            delta = self._capture.checkpoint(roots, only=only)
            # a record may point to objects only when they are durable
            self._objects.flush()
            return delta
        except KeyboardInterrupt:
            return Delta(failure="the checkpoint was interrupted")
        except Exception as error:  # noqa: BLE001 - the run goes on, not restorable after this
            return Delta(failure=f"{type(error).__name__}: {error}")

    def carry_out(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Do what a driver (or a live restart) asks for between cells."""
        command = order["command"]
        if command == "restore":
            return self.restore(order)
        if command == "finish":
            return self.finish_restore(order)
        if command == "assign":
            exec(compile(order["source"], "<parameters>", "exec"), self._shell.user_ns)  # noqa: S102
            return {"delta": self.capture()}
        message = f"unknown command {command!r}"
        raise ValueError(message)

    @property
    def current(self) -> Checkpoint:
        """Everything captured so far."""
        return self._capture.current

    def restore(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Replace the namespace by a checkpoint's, except the names to keep.

        Args:
            order: `checkpoint`, `keep`, `magics`, `inputs` and `execution_count`.
        """
        checkpoint: Checkpoint = from_plain(order["checkpoint"], Checkpoint)
        if not order.get("force"):
            _refuse_incompatible(checkpoint, order.get("python", ""))
        keep = set(order["keep"]) | self._unchanged(checkpoint)
        shellspace.clear(self._shell, keep=keep)
        state = self._ambient_of(checkpoint.ambient)
        warnings = ambient.apply(state)
        warnings += [
            told for line in order["magics"] if (told := run_setup_line(self._shell, line))
        ]
        report = restore(
            checkpoint,
            self._shell.user_ns,
            self._objects,
            skip=keep,
            definitions=self._definitions,
        )
        if report.failed:
            told = "; ".join(f"{name}: {why}" for name, why in sorted(report.failed.items()))
            raise StateError(f"not every value could be put back: {told}")
        self._definitions = dict(report.definitions)
        history = [name for name in report.restored if shellspace.is_history(name)]
        shellspace.place(self._shell, {n: self._shell.user_ns.pop(n) for n in history})
        shellspace.set_history(
            self._shell,
            {int(number): source for number, source in order["inputs"].items()},
            int(order["execution_count"]),
        )
        warnings += ambient.apply_generators(state)
        self._restored = checkpoint
        self._placed = shellspace.capture_roots(self._shell)
        return {"restored": sorted(report.restored), "warnings": warnings}

    def _ambient_of(self, ref: ObjectRef | None) -> dict[str, Any]:
        if ref is None:
            return {}
        state: dict[str, Any] = msgspec.json.decode(self._objects.get(ref))
        return state

    def _unchanged(self, checkpoint: Checkpoint) -> set[str]:
        """Names whose stored value is the one that was restored last: the objects may stay.

        They have to: what a cell rebuilt in the meantime may hold these very objects.
        """
        before = self._restored
        if before is None:
            return set()
        now = shellspace.capture_roots(self._shell)
        absent = object()
        return {
            name
            for name, variable in checkpoint.variables.items()
            if variable.component is not None
            and name in before.variables
            and before.variables[name].component == variable.component
            and now.get(name, absent) is self._placed.get(name)
        }

    def finish_restore(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Take what is there now as the checkpoint that the next one is compared with."""
        checkpoint: Checkpoint = from_plain(order["checkpoint"], Checkpoint)
        roots = shellspace.capture_roots(self._shell)
        self._capture.adopt(checkpoint, roots, self._definitions)
        self._ambient.adopt()
        return {}


def _refuse_incompatible(checkpoint: Checkpoint, stored_python: str) -> None:
    """Values of another Python minor, or another major of their package, need `--force`."""
    names = {name for component in checkpoint.components.values() for name in component.packages}
    python = ".".join(map(str, sys.version_info[:3]))
    found = incompatibilities(checkpoint, python, _versions(names), stored_python=stored_python)
    if found:
        raise StateError("; ".join(found) + " (--force loads them all the same)")


def _versions(packages: Collection[str]) -> dict[str, str]:
    """Versions of packages by import name, of those that can be imported here."""
    versions = {}
    for name in packages:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
            versions[name] = package_version(name) or ""
    return versions
