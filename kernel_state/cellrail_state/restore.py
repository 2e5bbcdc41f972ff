"""A `Checkpoint` -> the namespace of a fresh kernel.

Definitions are loaded first, then the components that hold the wanted names. Each name ends as
`restored`, `failed` (with the reason) or `not_stored` (its record says why). Objects are
verified against their addresses by the store; signatures were checked before anything gets here.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import msgspec

from . import pickling
from .errors import ObjectError, StateError
from .fresh import Fresh, fresh
from .loading import CODEC, Context
from .model import Checkpoint, Component, ObjectRef, Variable, Verdict

__all__ = [
    "Reader",
    "RestoreReport",
    "incompatibilities",
    "needed_at_once",
    "reading_order",
    "restore",
]


class Source(Protocol):
    """Where objects come from."""

    def get(self, ref: ObjectRef) -> Any:
        """The bytes, verified."""
        ...

    def buffer(self, ref: ObjectRef) -> Any:
        """The bytes, verified, in memory that can be written."""
        ...


class RestoreReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of each name."""

    restored: tuple[str, ...] = ()
    #: name -> why its copy did not load
    failed: dict[str, str] = {}
    #: name -> its record, for names that were asked for but are not stored
    not_stored: dict[str, Variable] = {}
    #: definitions by key, for `Capture.adopt`
    definitions: dict[str, Any] = {}


def restore(
    checkpoint: Checkpoint,
    namespace: dict[str, Any],
    objects: Source,
    *,
    names: Collection[str] | None = None,
    skip: Collection[str] = (),
    place: MutableMapping[str, Any] | None = None,
    definitions: Mapping[str, Any] | None = None,
    defined: bool = False,
    each: Callable[[Mapping[str, Any], Fresh | None], None] | None = None,
    ahead: Reader | None = None,
) -> RestoreReport:
    """Put the values of a checkpoint into a namespace.

    Args:
        checkpoint: what to restore.
        namespace: the live globals; the functions restored see this very dict.
        objects: where the bytes are.
        names: None for all.
        skip: names to leave alone (a cell that ran again made them).
        place: where the values go; None means `namespace`.
        definitions: functions and classes by key that exist already and are used as they are.
        defined: they live in the namespace already; their state is left alone, and others are
            loaded only where a value needs one.
        each: is handed the values of each component, with what is known of them, while the bytes
            of the next are being read.
        ahead: reads components already.

    Returns:
        What became of each name. Never raises for a single value.
    """
    wanted = {
        name: variable
        for name, variable in checkpoint.variables.items()
        if (names is None or name in names) and name not in skip
    }
    target: Any = namespace if place is None else place
    living = dict(definitions or {})
    context = Context(globals=namespace, definitions=living.copy())
    if defined:
        context.settled = frozenset(map(id, living.values()))
    failed: dict[str, str] = {}
    restored: dict[str, Any] = {}
    needed = {v.component for v in wanted.values() if v.verdict is Verdict.STORED}
    used = {key for c in checkpoint.components.values() if c.id in needed for key in c.uses}
    complete = defined and used <= living.keys()
    components = [
        c
        for c in checkpoint.components.values()
        if c.id in needed or (c.definitions and not complete)
    ]
    components.sort(key=reading_order)

    def take(component: Component, values: list[Any], known: Fresh | None) -> None:
        found = zip(component.names, values, strict=True)
        loaded = {n: v for n, v in found if n in wanted and wanted[n].component == component.id}
        restored.update(loaded)
        # code of the notebook that runs while another value is loaded may use this one
        target.update(loaded)
        if each is not None:
            each(loaded, known)

    waiting = _load_all(components, context, objects, ahead, take)
    while waiting and len(waiting) < len(components):
        # what failed may have needed a value that is there now
        components = [component for component, _ in waiting]
        waiting = _load_all(components, context, objects, None, take)
    for component, error in waiting:
        mine = [n for n in component.names if n in wanted and wanted[n].component == component.id]
        failed.update(dict.fromkeys(mine, _reason(component, error)))
    for name, variable in wanted.items():
        if name in restored:
            continue
        if variable.verdict is Verdict.STORED and name not in failed:
            failed[name] = "its component is not part of the checkpoint; run `cellrail doctor`"
    return RestoreReport(
        restored=tuple(name for name in wanted if name in restored),
        failed=failed,
        not_stored={n: v for n, v in wanted.items() if v.verdict is not Verdict.STORED},
        definitions=context.definitions,
    )


def reading_order(component: Component) -> tuple[bool, int, int]:
    """What has to be computed comes first, while what has only to be read is on its way.

    Of definitions, which may stand in several components, the newest state comes last.
    """
    if component.definitions:
        return False, 0, 0
    only_read = sum(ref.size for ref in component.buffers)
    return True, only_read, component.stream.size


def _load_all(
    components: Sequence[Component],
    context: Context,
    objects: Source,
    ahead: Reader | None,
    take: Callable[[Component, list[Any], Fresh | None], None],
) -> list[tuple[Component, Exception]]:
    """Load components in this order; those that failed, each with its error."""
    failed: list[tuple[Component, Exception]] = []
    with Reader(objects, components, ahead=ahead) as reader:
        for component in components:
            try:
                values, known = _load(component, context, reader)
            except Exception as error:  # noqa: BLE001 - one value must not stop the others
                failed.append((component, error))
                continue
            take(component, values, known)
    return failed


def needed_at_once(checkpoint: Checkpoint, small: int) -> frozenset[str]:
    """Names that a lazy restore puts back before any cell asks for them.

    Args:
        checkpoint: what is restored.
        small: bytes up to which waiting gains nothing.

    Returns:
        Names of small components, of definitions, of what matplotlib may have on its screen, and
        what IPython shows as `_`, which moves without being named.
    """
    found: set[str] = set()
    for component in checkpoint.components.values():
        moves = any(name.startswith("Out[_") for name in component.names)
        if component.size <= small or component.definitions or moves or _draws(component):
            found.update(component.names)
    unstored = (n for n, v in checkpoint.variables.items() if v.verdict is not Verdict.STORED)
    return frozenset(found.union(unstored))


def _draws(component: Component) -> bool:
    return "matplotlib" in component.packages


class Reader:
    """Reads the components' bytes in the background, in the order in which they are needed."""

    def __init__(
        self, objects: Source, components: Iterable[Component], *, ahead: Reader | None = None
    ) -> None:
        """Begin to read.

        Args:
            objects: where the bytes are.
            components: what will be asked for.
            ahead: a reader that began earlier; what it reads is taken from it.
        """
        self._ahead = ahead
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="cellrail-restore")
        self._collecting = gc.isenabled()
        self._read: dict[str, tuple[Future[Any], list[Future[Any]]]] = {
            component.id: (
                self._pool.submit(objects.buffer, component.stream),
                [self._pool.submit(objects.buffer, ref) for ref in component.buffers],
            )
            for component in components
            if ahead is None or not ahead.reads(component)
        }
        # its threads end when everything is read
        self._pool.shutdown(wait=False)

    def __enter__(self) -> Reader:
        # a million new tuples are no garbage
        gc.disable()
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        if self._collecting:
            _spare_the_collector()
            gc.enable()

    def reads(self, component: Component) -> bool:
        """Whether it reads this component, and nobody took it yet."""
        return component.id in self._read

    def of(self, component: Component) -> tuple[Any, list[Any]]:
        """Stream and buffers of a component, once."""
        if self._ahead is not None and not self.reads(component):
            return self._ahead.of(component)
        stream, buffers = self._read.pop(component.id)
        return stream.result(), [buffer.result() for buffer in buffers]


def _spare_the_collector() -> None:
    """What was loaded counts as old at once: else the next collection walks through all of it."""
    if gc.get_freeze_count() == 0:  # what somebody froze must stay so
        gc.freeze()
        gc.unfreeze()


def _load(component: Component, context: Context, reader: Reader) -> tuple[list[Any], Fresh | None]:
    if component.codec != CODEC:
        message = f"it was written with the codec {component.codec!r}; upgrade cellrail"
        raise StateError(message)
    stream, buffers = reader.of(component)
    trace = pickling.Trace()
    values = pickling.load(
        stream,
        buffers,
        context,
        count=len(component.names),
        has_definitions=bool(component.definitions),
        trace=trace,
    )
    return values, fresh(component, stream, map(memoryview, buffers), trace, context.definitions)


def _reason(component: Component, error: Exception) -> str:
    names = ", ".join(f"`{name}`" for name in component.variables) or "definitions"
    if isinstance(error, ObjectError):
        return f"{error} (needed by {names})"
    text = " ".join(str(error).split())
    what = text if isinstance(error, StateError) else f"{type(error).__name__}: {text}"
    return f"the copy of {names} does not load: {what}"[:500]


def incompatibilities(
    checkpoint: Checkpoint,
    python: str,
    packages: Mapping[str, str],
    *,
    stored_python: str = "",
    names: Iterable[str] | None = None,
) -> list[str]:
    """Why values of a checkpoint should not be loaded here.

    Args:
        checkpoint: what is to be restored.
        python: version of the Python that would load it.
        packages: versions of the packages installed there.
        stored_python: version of the Python that wrote it; empty means not to compare.
        names: only these variables and the definitions; None means all.

    Returns:
        One sentence for each difference: another Python minor, another major of a package.
    """
    found = []
    if stored_python and stored_python.split(".")[:2] != python.split(".")[:2]:
        found.append(f"stored under Python {stored_python}, this is Python {python}")
    wanted = None if names is None else {checkpoint.variables[n].component for n in names}
    differing: dict[str, tuple[str, str | None, set[str]]] = {}
    for component in checkpoint.components.values():
        if wanted is not None and component.id not in wanted and not component.definitions:
            continue
        for package, version in component.packages.items():
            here = packages.get(package)
            if here is None or here.split(".")[0] != version.split(".")[0]:
                differing.setdefault(package, (version, here, set()))[2].update(component.variables)
    for package, (version, here, users) in sorted(differing.items()):
        whose = ", ".join(sorted(users)) or "definitions"
        now = f"here is {here}" if here is not None else "it is not installed here"
        found.append(f"{whose}: stored with {package} {version}, {now}")
    return found


def incompatible(
    checkpoint: Checkpoint,
    python: str,
    packages: Mapping[str, str],
    *,
    stored_python: str = "",
    names: Iterable[str] | None = None,
) -> StateError | None:
    """The refusal to load a checkpoint's values here; None where they may be loaded."""
    found = incompatibilities(
        checkpoint, python, packages, stored_python=stored_python, names=names
    )
    return StateError("; ".join(found) + " (--force loads them all the same)") if found else None
