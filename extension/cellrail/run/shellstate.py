"""Capture and restore for one IPython shell, headless or live."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import msgspec

from cellrail.run import shellspace
from cellrail_state.ambient import Ambient
from cellrail_state.capture import Capture, Limits
from cellrail_state.model import Checkpoint, Delta, from_plain, to_plain
from cellrail_state.objects import Objects


class ShellState:
    """The checkpoints of one shell's namespace."""

    def __init__(
        self,
        shell: Any,
        objects: Objects,
        *,
        limits: Limits | None = None,
        secrets: Collection[str] = (),
    ) -> None:
        self._shell = shell
        self._objects = objects
        self._ambient = Ambient(secrets=tuple(secrets))
        self._capture = Capture(
            objects,
            globals=shell.user_ns,
            ambient=self._ambient,
            limits=limits or Limits(),
            secrets=tuple(secrets),
        )
        self._restored: Checkpoint | None = None
        self._placed: dict[str, object] = {}

    @classmethod
    def from_settings(cls, shell: Any, settings: Mapping[str, Any]) -> ShellState:
        """What a driver's settings ask for."""
        return cls(
            shell,
            Objects(Path(settings["objects"])),
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
            return self._capture.checkpoint(shellspace.capture_roots(self._shell), only=only)
        except KeyboardInterrupt:
            return Delta(failure="the checkpoint was interrupted")
        except Exception as error:  # noqa: BLE001 - the run goes on, not restorable after this
            return Delta(failure=f"{type(error).__name__}: {error}")

    def restore(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Replace the namespace by a checkpoint's, except the names to keep.

        Args:
            order: `checkpoint`, `keep`, `magics`, `inputs` and `execution_count`.
        """
        checkpoint: Checkpoint = from_plain(order["checkpoint"], Checkpoint)
        keep = set(order["keep"]) | self._unchanged(checkpoint)
        shellspace.clear(self._shell, keep=keep)
        ambient = self._ambient.load(checkpoint.ambient, self._objects)
        warnings = self._ambient.apply_before(ambient)
        for line in order["magics"]:
            warnings += self._magic(line)
        report = self._capture.restore(checkpoint, skip=keep)
        values = {n: self._shell.user_ns.pop(n) for n in report.restored if shellspace.is_history(n)}
        shellspace.place(self._shell, values)
        shellspace.set_history(
            self._shell,
            {int(number): source for number, source in order["inputs"].items()},
            int(order["execution_count"]),
        )
        warnings += self._ambient.apply_after(ambient)
        self._restored = checkpoint
        self._placed = shellspace.capture_roots(self._shell)
        return {"restored": sorted(report.restored), "failed": report.failed, "warnings": warnings}

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
        self._capture.adopt(checkpoint, shellspace.capture_roots(self._shell))
        return {}

    def _magic(self, line: str) -> list[str]:
        name, _, arguments = line.partition(" ")
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                self._shell.run_line_magic(name, arguments)
        except Exception as error:  # noqa: BLE001 - told, and the restart goes on
            return [f"%{line} did not run again: {type(error).__name__}: {error}"]
        return []
