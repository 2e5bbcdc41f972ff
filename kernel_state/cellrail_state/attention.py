"""Which names a capture looks at: those that the cell's code can have changed.

Beginning with the names that the code uses and those that are bound anew, it follows aliases
(groups of names that share objects) and definitions (functions and classes that a value reaches,
and the names which their code uses), until nothing new is met. A value is pickled on the way,
because only that tells which definitions it reaches now.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from .baseline import Baseline, Entry
from .piece import DEFINITIONS
from .pieces import Pieces
from .reach import Reach, local_state, words

#: cannot be stored, and run no code of the notebook by themselves
_HARMLESS = frozenset(
    ("_thread", "threading", "_io", "io", "tempfile", "socket", "ssl", "sqlite3", "mmap", "select",
     "_duckdb", "duckdb", "psycopg", "psycopg2", "sqlalchemy", "requests", "httpx", "urllib3",
     "subprocess", "builtins", "weakref", "re", "zipfile", "tarfile", "gzip", "h5py", "queue")
)  # fmt: skip
#: characters of the longest string that is taken for a query
_TEXT = 1 << 20
_RUNS_CODE = frozenset({"generator", "coroutine", "async_generator", "frame", "map", "filter"})


class Attention:
    """Looks at names of one namespace, and follows them."""

    def __init__(
        self,
        pieces: Pieces,
        roots: Mapping[str, object],
        *,
        baseline: Baseline,
        reach: Reach,
        drawing: bool = False,
    ) -> None:
        """Prepare to look.

        Args:
            pieces: what was looked at; grows.
            roots: the namespace.
            baseline: what is remembered of it.
            reach: follows definitions.
            drawing: figures are open, which `pyplot` changes without naming them.
        """
        self.seen: set[str] = set()
        #: whether a definition was reached: its state may have changed
        self.needs_definitions = False
        self._pieces, self._roots, self._entries = pieces, roots, baseline.entries
        self._groups, self._reach, self._drawing = baseline.group_of, reach, drawing
        self._settled: dict[int, list[str]] = {}
        self._followed: set[str] = set()

    def look_at_all(self) -> None:
        """Look at everything that was not followed."""
        for name in self._roots.keys() - self.seen:
            if self._look_at(name):
                self.needs_definitions = True
            self.seen.add(name)

    def follow(self, names: Iterable[str]) -> None:
        """Look at these names, at those bound anew, and at what they lead to."""
        waiting = {name for name in names if name in self._roots}
        waiting |= {name for name in self._roots if self._is_news(name)}
        while waiting:
            keys: set[str] = set()
            for name in waiting:
                keys |= self._look_at(name)
            batch, waiting = waiting, set()
            self.seen |= batch
            waiting |= {other for name in batch for other in self._groups.get(name, ())}
            waiting.update(self._led_to(batch, keys))
            if DEFINITIONS in waiting:
                self.needs_definitions = True
            if self.needs_definitions:
                waiting |= self._beside_definitions()
            waiting &= self._roots.keys()
            waiting -= self.seen

    def _is_news(self, name: str) -> bool:
        """Bound anew since the last capture, or not stored then."""
        entry = self._entries.get(name)
        if entry is None or entry.error is not None or (entry.drawn and self._drawing):
            return True
        return not entry.is_object(self._roots[name])

    def _look_at(self, name: str) -> set[str]:
        entry, value = self._entries.get(name), self._roots[name]
        keys = set(entry.keys) if entry is not None else set()
        if entry is None or not entry.is_settled(value) or self._is_in_company(name, entry):
            self._pieces.add(name, value)
            keys |= set(self._pieces.all[name].keys)
        elif not entry.still:
            self._settled.setdefault(id(value), []).append(name)
        return keys

    def _is_in_company(self, name: str, entry: Entry) -> bool:
        """Whether it shares its component: it has to be written anew where it leaves that."""
        return not entry.still and len(self._groups.get(name, ())) > 1

    def _led_to(self, names: Collection[str], keys: Collection[str]) -> Collection[str]:
        """Names that the code reached through these can use."""
        fresh = set(keys) - self._followed
        self._followed |= fresh
        self.needs_definitions |= bool(fresh)
        if any(self._may_run_anything(name) for name in names) or local_state(names, self._roots):
            return self._roots.keys()
        found = self._reach.names(fresh) if fresh else frozenset()
        return self._roots.keys() if found is None else found

    def _may_run_anything(self, name: str) -> bool:
        piece = self._pieces.all.get(name)
        if piece is None or piece.error is None or piece.over_limit:
            return False
        return _may_run_anything(self._roots[name])

    def _beside_definitions(self) -> set[str]:
        """Names that are definitions, or share objects with the state of one."""
        beside = {n for group in self._groups.values() if DEFINITIONS in group for n in group}
        beside |= {n for n, entry in self._entries.items() if entry.defines}
        return beside

    def settle(self) -> None:
        """Look at settled containers after all, where they lie within values that were pickled."""
        for name in sorted(self._pieces.reach(self._settled)) if self._settled else ():
            self._pieces.add(name, self._roots[name])


def _may_run_anything(value: object) -> bool:
    """Whether a value that cannot be stored may run code of the notebook."""
    kind = type(value)
    home = str(kind.__module__).partition(".")[0]
    return kind.__name__ in _RUNS_CODE or home not in _HARMLESS


def leads_to(
    names: Collection[str],
    roots: Mapping[str, object],
    *,
    baseline: Baseline,
    reach: Reach,
) -> set[str] | None:
    """What code can reach through these names before it runs, by what is remembered; None for any.

    Words of strings count as names: queries and formulas name variables there.
    """
    seen: set[str] = set()
    followed: set[str] = set()
    waiting = set(names)
    while waiting:
        batch, waiting = waiting, set()
        seen |= batch
        here = batch & roots.keys()
        if local_state(here, roots):
            return None
        for name in here:
            entry, value = baseline.entries.get(name), roots[name]
            waiting.update(baseline.group_of.get(name, ()))
            if isinstance(value, str) and len(value) < _TEXT:
                waiting.update(words(value))
            if entry is None:
                continue
            if entry.error is not None and _may_run_anything(value):
                return None
            fresh = set(entry.keys) - followed
            followed |= fresh
            used = reach.names(fresh, spoken=True) if fresh else frozenset()
            if used is None:
                return None
            waiting |= used
        waiting -= seen
    return seen
