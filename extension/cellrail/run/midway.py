"""Storing some names in the middle of a cell, and putting them back: what `flow.each` needs here.

Beside the capture of the whole namespace, and without its knowing: each loop has a capture of its
own of the names that it saves, with a memory of its own of what it has written. So the checkpoint
at the cell's end, and a roll-back before another attempt, work as if nothing had been stored in
between. Both know functions and classes by the same keys.

Putting back happens in a cell that has been executed up to its loop once more. Functions and
classes that are there (from before the cell, or defined again by it) stay, and values are bound to
them; others are loaded. Of those that stay, what they keep (attributes of classes, defaults,
closures) is put back too, unless the cell was edited: then they are what the new code says.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import msgspec

from cellrail.run import shellspace
from cellrail.run.together import tied_to
from cellrail_state import ambient
from cellrail_state.capture import Capture, Limits
from cellrail_state.definitions import is_definition
from cellrail_state.errors import CannotRestore, CannotStore
from cellrail_state.model import Checkpoint, ObjectRef
from cellrail_state.objects import Objects
from cellrail_state.restore import restore


class MidCapture:
    """Stores the names of one loop, again and again; of them only what changed is written."""

    def __init__(self, make: Callable[[], Capture], shell: Any, objects: Objects) -> None:
        self._make, self._shell, self._objects = make, shell, objects
        self.capture: Capture | None = None

    def store(self, names: Sequence[str]) -> Checkpoint:
        """Write these names as they are now, and the ambient state.

        Raises:
            CannotStore: one of them is not there, or cannot be stored.
        """
        roots = shellspace.user_names(self._shell)
        for name in names:
            if name not in roots:
                near = get_close_matches(name, roots, n=1)
                told = f"; did you mean {near[0]!r}?" if near else ""
                raise CannotStore(f"there is no variable {name!r} to save{told}")
        # what fails in the midst has written some of it, nobody knows what
        capture, self.capture = self.capture or self._make(), None
        capture.checkpoint({name: roots[name] for name in names}, audit=False)
        self._objects.flush()
        found = capture.current
        for name in names:
            variable = found.variables[name]
            if variable.component is None:
                raise CannotStore(f"`{name}` cannot be stored: {variable.reason}")
        self.capture = capture
        return msgspec.structs.replace(found.only(names), ambient=found.ambient)


class Midway:
    """What one shell stores in mid-cell."""

    def __init__(
        self,
        shell: Any,
        objects: Objects,
        main: Capture,
        *,
        base: ambient.Base,
        limits: Limits,
        secrets: Sequence[str],
        bring: Callable[[Collection[str]], None],
        compatible: Callable[[Checkpoint], None],
    ) -> None:
        """Know the shell.

        Args:
            shell: the IPython shell.
            objects: where values are written.
            main: the capture of the whole namespace.
            base: the process as it was before any code of the user ran.
            limits: what a capture may cost.
            secrets: what must not be written.
            bring: puts back what waits to be restored and code that uses these names can reach.
            compatible: raises where a checkpoint's values should not be loaded here.
        """
        self._shell, self._objects, self._main = shell, objects, main
        self._base, self._limits, self._secrets = base, limits, [*secrets]
        self._captures: weakref.WeakSet[MidCapture] = weakref.WeakSet()
        self.bring, self._compatible = bring, compatible
        #: the loops that are under way, outermost first
        self.loops: list[weakref.ref[Any]] = []
        #: names that were put back since the last capture of the whole namespace
        self.put: set[str] = set()

    def captures(self) -> MidCapture:
        """The captures of one loop."""
        made = MidCapture(self._new_capture, self._shell, self._objects)
        self._captures.add(made)
        return made

    def _new_capture(self) -> Capture:
        surroundings = ambient.Ambient(self._base, secrets=tuple(self._secrets))

        def write(store: Any) -> ObjectRef | None:
            return surroundings.capture(store)

        return Capture(
            self._objects, globals=self._shell.user_ns, ambient=write, limits=self._limits,
            secrets=tuple(self._secrets), definitions=self._main.definitions,
        )  # fmt: skip

    def learn(self, secrets: Sequence[str]) -> None:
        """Nothing that is written from now on holds these secrets."""
        self._secrets += secrets
        for made in self._captures:
            made.capture = None

    def put_back(self, checkpoint: Checkpoint, names: Sequence[str], *, edited: bool) -> list[str]:
        """Put names back as they were stored, and the ambient state.

        Args:
            checkpoint: what was stored.
            names: some of its names.
            edited: the cell is not as it was then.

        Returns:
            What is not as it was, in words.

        Raises:
            CannotRestore: a value's copy does not load; nothing is changed.
        """
        self._compatible(checkpoint)
        there = shellspace.user_names(self._shell)
        tied = tied_to(there, names, there.keys() - {*names})
        told = [
            f"`{other}` shared an object with `{name}`, and is cut off from it (save it too)"
            for other, name in sorted(tied.items())
        ]
        known = self._definitions(checkpoint, there)
        uses = {key for c in checkpoint.components.values() for key in c.uses}
        lacking = uses - known.keys()
        if edited and lacking:
            told.append(
                "functions and classes that it uses are as they were before the edit: "
                + ", ".join(sorted(key.rpartition("#")[0] for key in lacking))
                + " cannot be found in the cell as it is now"
            )
        placed: dict[str, Any] = {}
        report = restore(
            checkpoint, self._shell.user_ns, self._objects, names=names, place=placed,
            definitions=known, defined=edited and not lacking,
        )  # fmt: skip
        if report.failed:
            why = "; ".join(f"{name}: {why}" for name, why in sorted(report.failed.items()))
            raise CannotRestore(why)
        shellspace.place(self._shell, placed)
        self.put.update(placed)
        if checkpoint.ambient is not None:
            state: dict[str, Any] = msgspec.json.decode(self._objects.get(checkpoint.ambient))
            told += ambient.apply(state)
            told += ambient.apply_generators(state)
        return told

    def _definitions(self, checkpoint: Checkpoint, there: Mapping[str, object]) -> dict[str, Any]:
        """Functions and classes that stay, by the keys under which the stored values know them."""
        before = {key for c in self._main.current.components.values() for key in c.definitions}
        living = self._main.definitions.living()
        found: dict[str, Any] = {}
        for component in checkpoint.components.values():
            for key in component.definitions:
                name = key.rpartition("#")[0]
                if key in before and key in living:
                    found[key] = living[key]
                elif name in there and _stands_for(there[name], name):
                    found[key] = there[name]
        return found


def _stands_for(value: Any, name: str) -> bool:
    return is_definition(value) and getattr(value, "__qualname__", name) == name
