"""The ways to keep a namespace that `make bench-state` compares.

A method runs cells and says what keeping the namespace after each of them took; `mark` writes down
what `restore` needs to bring back the namespace as it is then, in another process.
"""

# ruff: noqa: ARG002 - a method need not use all that it is given

from __future__ import annotations

import json
import os
import pickle
import sys
import time
import types
from pathlib import Path
from typing import Any, NamedTuple

from state_cells import CHANGED, EDITS, MAKE
from state_shell import Memory, cell, written


class Kept(NamedTuple):
    """What it took to keep the namespace after one cell."""

    seconds: float
    #: bytes written
    stored: int
    #: the most memory held meanwhile
    peak: int


class Method:
    """Keeps nothing: the cells alone."""

    def __init__(self, ip: Any, folder: Path) -> None:
        self.ip, self.folder = ip, folder
        self.memory = Memory()

    def run(self, source: str, *, last: bool = False) -> Kept:
        """Execute a cell, and keep the namespace."""
        cell(self.ip, source)
        self.memory.forget()
        started = time.perf_counter()
        stored = self.keep(source, last=last)
        return Kept(time.perf_counter() - started, stored, self.memory.peak())

    def keep(self, source: str, *, last: bool) -> int:
        """Keep the namespace after this cell; bytes written."""
        return 0

    def finish(self) -> None:
        """Wait for whatever is still under way after the last cell."""

    def mark(self, cut: int) -> None:
        """The namespace shall be restored as it is now."""

    def prepare(self, cut: int) -> None:
        """What a restore may have done before it is asked for."""

    def restore(self, cut: int) -> None:
        """Bring every name back as it was at the cut."""

    def restore_small(self, cut: int, source: str) -> None:
        """Until a cell has run that needs one small value."""
        self.restore(cut)
        cell(self.ip, source)

    def release(self) -> None:
        """Keep nothing any more: cells that follow only check the restored namespace."""


class Cellrail(Method):
    """As a run does it: with the names that each cell's code uses."""

    def __init__(self, ip: Any, folder: Path) -> None:
        from cellrail.run.shellstate import ShellState
        from cellrail_state.ambient import Base
        from cellrail_state.objects import Objects

        super().__init__(ip, folder)
        self._state = ShellState(ip, Objects(folder / "objects"), base=Base.now())
        self._order: dict[str, Any] = {}

    def keep(self, source: str, *, last: bool) -> int:
        touched = self._touched(source)
        started = time.perf_counter()
        delta = self._state.delta(touched=touched, last=last)
        assert not delta.failure, delta.failure
        told = f"{time.perf_counter() - started:7.3f} s {delta.stored_bytes / 1e6:9.2f} MB"
        told += f" audited={delta.audited} {source.strip().splitlines()[0]}"
        print(told, delta.missed or "", file=sys.stderr)
        return delta.stored_bytes

    def mark(self, cut: int) -> None:
        import msgspec

        text = msgspec.json.encode(self._state.current)
        (self.folder / f"{cut}.json").write_bytes(text)

    def prepare(self, cut: int) -> None:
        from cellrail.settings import Settings

        checkpoint = json.loads((self.folder / f"{cut}.json").read_bytes())
        self._order = {
            "command": "restore", "checkpoint": checkpoint, "keep": [], "magics": [], "inputs": {},
            "execution_count": 30, "python": "", "lazy_above": Settings().lazy_above,
        }  # fmt: skip

    def restore(self, cut: int) -> None:
        self._begin()
        self._state.bring(None)

    def restore_small(self, cut: int, source: str) -> None:
        self._begin()
        self._state.bring(self._touched(source))
        cell(self.ip, source)

    @staticmethod
    def _touched(source: str) -> frozenset[str] | None:
        from cellrail.notebook.reads import names_of

        names = names_of(source)
        return None if names.opaque else names.reads | names.writes

    def _begin(self) -> None:
        self._state.carry_out(self._order)
        self._state.carry_out({**self._order, "command": "finish"})


class Whole(Method):
    """The whole namespace in one file after each cell; only marked files are left."""

    def __init__(self, ip: Any, folder: Path) -> None:
        super().__init__(ip, folder)
        self._path = folder / "namespace"

    def keep(self, source: str, *, last: bool) -> int:
        self.dump()
        return written(self._path)

    def mark(self, cut: int) -> None:
        self._path.rename(self.folder / str(cut))

    def restore(self, cut: int) -> None:
        self._path = self.folder / str(cut)
        self.load()

    def dump(self) -> None:
        """Write the file."""

    def load(self) -> None:
        """Read it."""


class Pickle(Whole):
    """Pickle protocol 5, with cloudpickle for what the notebook defines."""

    def __init__(self, ip: Any, folder: Path) -> None:
        import cloudpickle  # noqa: F401 - importing it is not keeping

        super().__init__(ip, folder)

    def dump(self) -> None:
        import cloudpickle

        with self._path.open("wb") as file:
            cloudpickle.dump(_values(self.ip), file, protocol=5)

    def load(self) -> None:
        with self._path.open("rb") as file:
            self.ip.user_ns.update(pickle.load(file))


class Dill(Whole):
    """`dill.dump_module`: the session as a file."""

    def __init__(self, ip: Any, folder: Path) -> None:
        import dill  # noqa: F401 - importing it is not keeping

        super().__init__(ip, folder)

    def dump(self) -> None:
        import dill

        dill.dump_module(self._path)

    def load(self) -> None:
        import dill

        dill.load_module(self._path)


class Limit(Method):
    """Nobody can be faster: append just the changed bytes to a file, with fsync, and read them.

    What changed is known beforehand, and turning it into bytes is not counted.
    """

    def __init__(self, ip: Any, folder: Path) -> None:
        super().__init__(ip, folder)
        self._path = folder / "changed"
        self._step = -1
        self._sizes: list[int] = []

    def run(self, source: str, *, last: bool = False) -> Kept:
        cell(self.ip, source)
        parts = self._changed(source)
        self.memory.forget()
        started = time.perf_counter()
        if parts:
            with self._path.open("ab") as file:
                for part in parts:
                    file.write(part)
                file.flush()
                os.fdatasync(file.fileno())
        seconds = time.perf_counter() - started
        sizes = [memoryview(part).nbytes for part in parts]
        self._sizes += sizes
        return Kept(seconds, sum(sizes), self.memory.peak())

    def _changed(self, source: str) -> list[Any]:
        import cloudpickle

        if source in EDITS:
            self._step += 1
            changed = CHANGED[self._step]
            value = eval(changed, self.ip.user_ns) if changed else None
        else:
            value, changed = _values(self.ip) if source == MAKE else None, source
        if not changed or value is None:
            return []
        buffers: list[Any] = []
        stream = cloudpickle.dumps(value, protocol=5, buffer_callback=buffers.append)
        return [stream, *(buffer.raw() for buffer in buffers)]

    def mark(self, cut: int) -> None:
        (self.folder / str(cut)).write_text(json.dumps(self._sizes))

    def restore(self, cut: int) -> None:
        sizes = json.loads((self.folder / str(cut)).read_text())
        with self._path.open("rb", buffering=0) as file:
            self._read = [bytearray(size) for size in sizes]
            for part in self._read:
                view = memoryview(part)
                while view:
                    view = view[file.readinto(view) :]

    def restore_small(self, cut: int, source: str) -> None:
        with self._path.open("rb") as file:
            file.read(100)


def _values(ip: Any) -> dict[str, Any]:
    return {
        name: value
        for name, value in ip.user_ns.items()
        if not name.startswith("_")
        and name not in {"In", "Out", "get_ipython", "exit", "quit", "open"}
        and not isinstance(value, types.ModuleType)
    }
