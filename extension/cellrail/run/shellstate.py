"""Capture and restore for one IPython shell, headless or live."""

from __future__ import annotations

import contextlib
import importlib
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from cellrail.run import shellspace
from cellrail.run.asking import revived
from cellrail.run.busy import Bystanders
from cellrail.run.conditions import Watch, only_looks
from cellrail.run.environment import variables
from cellrail.run.fitness import Fitness
from cellrail.run.layover import LayOver
from cellrail.run.midway import Midway
from cellrail.run.setup import run_setup_line
from cellrail.run.together import made_again, stay
from cellrail.run.turns import Turns
from cellrail.run.waiting import Waiting
from cellrail_state import ambient
from cellrail_state.capture import Capture, Limits
from cellrail_state.errors import StateError
from cellrail_state.inspection import package_version
from cellrail_state.model import (
    Checkpoint,
    Component,
    Delta,
    ObjectRef,
    Variable,
    from_plain,
    to_plain,
)
from cellrail_state.objects import Objects
from cellrail_state.restore import incompatible, needed_at_once, restore

#: audits take at most one part in so many of a run's time
_AUDIT_SHARE = 100.0
#: so do looks before cells
_LOOKING_SHARE = 20.0
#: bytes that an audit looks at in a second, as a first guess
_AUDITED_PER_SECOND = 5e8
#: where a path into the run's shared folder comes from
_SHARED = "cellrail.shared"


class AuditClock:
    """When to look at everything again: so rarely that it takes a small share of the time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds = 0.0
        self._bytes = 0
        self._ended = clock()

    def are_due(self, stored_bytes: Callable[[], int]) -> bool:
        """Whether the next capture shall be an audit.

        Args:
            stored_bytes: what the namespace takes in the store now.
        """
        passed = self._clock() - self._ended
        if passed < _AUDIT_SHARE * self._seconds:
            return False
        grown = max(0, stored_bytes() - self._bytes)
        return passed >= _AUDIT_SHARE * (self._seconds + grown / _AUDITED_PER_SECOND)

    def took(self, seconds: float, stored_bytes: int) -> None:
        """An audit has ended."""
        self._seconds, self._bytes, self._ended = seconds, stored_bytes, self._clock()


class _Captured(msgspec.Struct, frozen=True, kw_only=True):
    """The last capture, and what was known before it."""

    before: Checkpoint
    pending: Delta | None
    delta: Delta


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
        #: what `flow.each` stores and puts back in mid-cell
        self.midway = Midway(
            shell, objects, self._capture, base=base, limits=limits or Limits(),
            secrets=tuple(secrets), bring=self.bring, compatible=_refuse_incompatible_in_cell,
        )  # fmt: skip
        self._bystanders = Bystanders(shell)
        self._fitness = Fitness(self._ambient, self._bystanders)
        self._audits = AuditClock()
        self._definitions: dict[str, Any] = {}
        self._restored: Checkpoint | None = None
        self._placed: dict[str, object] = {}
        self._waiting = Waiting(shell, objects, self._capture)
        self.turns = Turns(shell)
        #: what was captured, and is part of the next delta
        self._pending: Delta | None = None
        #: the capture after the last cell; whether that cell has failed after all
        self._last: _Captured | None = None
        self._refused = False
        #: the process beside the variables, before a job that may be kept
        self._before_job: dict[str, Any] = {}
        #: code of the notebook ran beside the cell when it began
        self._beside = False
        #: seconds that looks before cells took, and when this began
        self._spent, self._began = 0.0, time.monotonic()

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

    def delta(
        self,
        *,
        only: Collection[str] | None = None,
        touched: Collection[str] | None = None,
        last: bool = False,
    ) -> Delta:
        """Checkpoint the namespace. Never raises for a value's sake.

        Args:
            only: names of `--outputs`.
            touched: names that the cell's code uses; None where it may use any.
            last: no cell follows: everything is looked at.
        """
        captured, self._last = self._last, None
        if self._refused and captured is not None:
            # what was captured and did not count is part of what is captured now
            self._pending, self._refused = captured.delta, False
        before, earlier = self._capture.current, self._pending
        try:
            roots = shellspace.capture_roots(self._shell)
            touched = None if self._beside else self._any_or(self._with_put(touched))
            self._beside = False
            self.midway.put.clear()
            audit = last or self._audits.are_due(lambda: self._capture.stored_bytes)
            delta = self._capture.checkpoint(roots, only=only, touched=touched, audit=audit)
            if delta.audited:
                self._audits.took(delta.seconds, self._capture.stored_bytes)
            # a record may point to objects only when they are durable
            self._objects.flush()
            pending, self._pending = self._pending, None
            delta = delta if pending is None else pending.then(delta)
            self._last = _Captured(before=before, pending=earlier, delta=delta)
            return delta
        except KeyboardInterrupt:
            return Delta(failure="the checkpoint was interrupted")
        except Exception as error:  # noqa: BLE001 - the run goes on, not restorable after this
            return Delta(failure=f"{type(error).__name__}: {error}")

    def learn(self, secrets: Sequence[str]) -> None:
        """The run knows more secrets from now on: no checkpoint holds them."""
        self._capture.learn(secrets)
        self._ambient.learn(secrets)
        self.midway.learn(secrets)

    def baseline(self, touched: Collection[str] | None, *, last: bool = False) -> None:
        """Before a first attempt: take the namespace as it is now, for `roll_back`.

        Since the last checkpoint a loop's variable was bound, or a cell ran that has none.

        Args:
            touched: names that the step's code uses; None where it may use any.
            last: the kernel may be given up before another attempt: everything is looked at.
        """
        self._pending = self.delta(touched=touched, last=last)

    @property
    def missed_before(self) -> tuple[str, ...]:
        """What the look before the attempt found changed unseen: no checkpoint has it yet."""
        return self._pending.missed if self._pending is not None else ()

    def look_before(self, touched: Collection[str] | None, rebinds: Collection[str] = ()) -> None:
        """Before a cell: find what changed unseen, lest it passes for the cell's own doing.

        As far as that takes a small share of the time; an audit finds the rest.

        Args:
            touched: names that the cell's code uses; None where it may use any.
            rebinds: of these, names that it binds before it uses what they held.
        """
        # what runs beside the cell may be gone when it ends
        self._beside = self._bystanders.may_run()
        self._capture.knows_of(self.turns.bound)
        self.turns.bound.clear()
        started = time.monotonic()
        if self._spent > (started - self._began) / _LOOKING_SHARE:
            return
        # what cannot be looked at has not been found
        with contextlib.suppress(Exception):
            roots = shellspace.capture_roots(self._shell)
            self._capture.look_before(roots, None if self._beside else touched, rebinds)
        self._spent += time.monotonic() - started

    @property
    def beside(self) -> bool:
        """Whether code of the notebook may run beside its cells."""
        return self._bystanders.may_run()

    def missed(self, touched: Collection[str] | None) -> tuple[str, ...]:
        """After a cell that failed: names that changed before it, though no code showed it."""
        try:
            roots = shellspace.capture_roots(self._shell)
            return self._capture.missed(roots, self._with_put(touched))
        except Exception:  # noqa: BLE001 - what cannot be looked at has not been found
            return ()

    def carry_out(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Do what a driver (or a live restart) asks for between cells."""
        commands: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
            "restore": self.restore,
            "finish": self.finish_restore,
            "assign": self._assign,
            "evaluate": self.evaluate,
            "items": self.turns.items,
            "leave": self._leave,
            "fork": self._fork,
            "audit": self._audit,
            "fit": self._fit,
            "inputs": self._inputs,
            "take": self._take,
            "drift": self._drift,
            "roll back": self._roll_back,
            "refuse": self._refuse,
            "lay over": self.lay_over,
            "reserve": self._reserve,
        }
        return commands[order["command"]](order)

    def evaluate(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Whether a condition is true, which must change nothing.

        Args:
            order: as for `Turns.evaluate`; with `watched` the names that it uses (None for any),
                and with `looks` whether its text tells that it only looks.
        """
        # beside other code nobody could tell who has changed something
        if "watched" not in order or self._bystanders.may_run():
            return self.turns.evaluate(order)
        if order["looks"] and only_looks(self._shell, order["watched"]):
            return self.turns.evaluate(order)
        watch = Watch(self._shell, self._capture, order["watched"])
        return self.turns.evaluate(order, watch.refuse_changes)

    def _assign(self, order: Mapping[str, Any]) -> dict[str, Any]:
        exec(compile(order["source"], "<parameters>", "exec"), self._shell.user_ns)  # noqa: S102
        return {"delta": to_plain(self.delta())}

    def _fork(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Checkpoint the namespace that the items of a parallel loop begin on."""
        return {"delta": to_plain(self.delta(touched=order["touched"], last=order["last"]))}

    def _audit(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Look at everything, though nothing is captured: no cell follows."""
        roots = shellspace.capture_roots(self._shell)
        return {"missed": list(self._capture.missed(roots, self._any_or(order["touched"])))}

    def _fit(self, _: Mapping[str, Any]) -> dict[str, Any]:
        """Whether the namespace that was restored last is as in a fresh kernel."""
        return {"faults": self._fitness.faults(self._ambient_of(self.current.ambient))}

    def _inputs(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """What a step can reach, as digests.

        Args:
            order: `names` that its code uses (None for any), of these `plain` those that it names
                outside strings, top-level `imports`, and variables of the `environment` (None for
                any).
        """
        roots, names = shellspace.capture_roots(self._shell), order["names"]
        reached = None
        if names is not None and not self._bystanders.may_run():
            reached = self._capture.leads_to(roots, names)
        if reached is None:
            return {"why": "it may use any name"}
        if any(shellspace.is_hidden(name) for name in order["plain"]):
            return {"why": "it uses earlier outputs"}
        known = {name: value for name, value in roots.items() if not shellspace.is_hidden(name)}
        found = self._capture.fingerprints(known, reached & known.keys())
        unknown = [name for name, digest in found.digests.items() if digest is None]
        if unknown:
            return {"why": f"{', '.join(unknown)} cannot be compared"}
        if _SHARED in found.modules:
            return {"why": "it can reach a path into the run's shared folder"}
        self._before_job = self._ambient.snapshot()
        tops = {*order["imports"], *(name.partition(".")[0] for name in found.modules)}
        return {
            "inputs": found.digests,
            "absent": [name for name in order["plain"] if name not in known],
            "packages": {top: v for top in sorted(tops) if (v := package_version(top))},
            "python": list(sys.version_info[:2]),
            "environment": variables(order["environment"]),
        }

    def _drift(self, _: Mapping[str, Any]) -> dict[str, Any]:
        """Parts of the process beside variables and imports that are not as before the job."""
        before, now = self._before_job, self._ambient.snapshot()
        names = (before.keys() | now.keys()) - {"modules"}
        return {"changed": sorted(n for n in names if before.get(n) != now.get(n))}

    def _take(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Have what another job wrote, as if it had been executed here."""
        variables = from_plain(order["variables"], dict[str, Variable])
        checkpoint = Checkpoint(
            components=from_plain(order["components"], dict[str, Component]),
            variables={n: v for n, v in variables.items() if not shellspace.is_hidden(n)},
        )
        placed = self._gathered(checkpoint, checkpoint.variables)
        shellspace.place(self._shell, placed)
        gone = [name for name in order["deleted"] if not shellspace.is_hidden(name)]
        shellspace.remove(self._shell, gone)
        delta = self.delta(touched={*placed, *gone, *order["written"]}, last=order["last"])
        # names that only share objects with what the job wrote: it has not written them
        beside = placed.keys() - set(order["written"])
        written = tuple(name for name in delta.written if name not in beside)
        return {"delta": to_plain(msgspec.structs.replace(delta, written=written))}

    def _gathered(self, checkpoint: Checkpoint, names: Collection[str]) -> dict[str, Any]:
        """What an item that had a kernel of its own left for the loop to collect."""
        living = self._capture.definitions.living()
        placed: dict[str, Any] = {}
        keys = {key for c in checkpoint.components.values() for key in c.definitions}
        with ambient.generators_kept():
            report = restore(
                checkpoint,
                self._shell.user_ns,
                self._objects,
                names=names,
                place=placed,
                definitions=living,
                defined=keys <= living.keys(),
            )
        if report.failed:
            told = "; ".join(f"{name}: {why}" for name, why in sorted(report.failed.items()))
            raise StateError(f"what the loop collects does not load: {told}")
        return placed

    def _leave(self, order: Mapping[str, Any]) -> dict[str, Any]:
        names = order["collect"]
        branches = from_plain(order.get("branches", ()), tuple[Checkpoint, ...])
        gathered = [self._gathered(branch, names) for branch in branches]
        if "branches" in order:
            self.turns.gather_all(order["root"], names, gathered)
        bound = {name for values in gathered for name in values}
        if absent := [name for name in self.turns.absent(order) if name not in bound]:
            return {"absent": absent}
        self.turns.leave(order)
        errors = order.get("errors", {})
        self._shell.user_ns.update(
            {name: self._raised(branches, name, error) for name, error in errors.items()}
        )
        delta = self.delta(touched=[*order["collect"], *errors], last=order["last"])
        return {"absent": [], "delta": to_plain(delta)}

    def _raised(
        self, branches: Sequence[Checkpoint], name: str, error: Mapping[str, Any]
    ) -> object:
        """The exception that an item left; in words, where it does not load."""
        try:
            left = self._gathered(branches[error["item"]], [name])
        except StateError:
            left = {}
        return left[name] if name in left else RuntimeError(error["told"])

    def _roll_back(self, order: Mapping[str, Any]) -> dict[str, Any]:
        return {"not_restored": list(self.roll_back(order["touched"]))}

    def _refuse(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """The cell that was captured last has failed after all: what it set is not committed.

        Args:
            order: `error`; with `on_error` the flow goes on with what the cell left, and with the
                error as `binds_error`; else the capture, if one was made (`captured`), is no part
                of the run.
        """
        name = order["binds_error"]
        self.turns.failed(revived(order["error"]), name)
        if order["on_error"]:
            touched = [name] if name else []
            return {"delta": to_plain(self.delta(touched=touched, last=order["last"]))}
        self._refused = order["captured"] and self._last is not None
        return {}

    def _reserve(self, order: Mapping[str, Any]) -> dict[str, Any]:
        self._capture.reserve(order["keys"])
        ambient.apply_generators({"generators": order.get("generators", {})})
        return {}

    @property
    def current(self) -> Checkpoint:
        """Everything captured so far."""
        return self._capture.current

    def living(self) -> dict[str, Any]:
        """The notebook's classes and functions that live now, by key."""
        return self._capture.definitions.living()

    def restore(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Replace the namespace by a checkpoint's, except the names to keep.

        Args:
            order: `checkpoint`, `keep`, `magics`, `inputs` and `execution_count`; values above
                `lazy_above` bytes wait until `bring` is told of code that can reach them. With
                `watch` the next one tells what was changed in between.
        """
        checkpoint: Checkpoint = from_plain(order["checkpoint"], Checkpoint)
        if not order.get("force"):
            _refuse_incompatible(checkpoint, order.get("python", ""))
        before = self._ambient.snapshot()
        try:
            with shellspace.whole_or_not_at_all(self._shell):
                return self._replace(order, checkpoint)
        except BaseException:
            self._ambient.apply(before)
            ambient.apply_generators(before)
            raise

    def _replace(self, order: Mapping[str, Any], checkpoint: Checkpoint) -> dict[str, Any]:
        keep = set(order["keep"]) | self._unchanged(checkpoint)
        equal, cut_off = self._made_again(order, checkpoint, keep)
        keep |= equal
        shellspace.clear(self._shell, keep=keep)
        state = self._ambient_of(checkpoint.ambient)
        warnings = [*cut_off, *self._ambient.apply(state)]
        warnings += [
            told for line in order["magics"] if (told := run_setup_line(self._shell, line))
        ]
        report = restore(
            checkpoint,
            self._shell.user_ns,
            self._objects,
            names=checkpoint.variables.keys() - self._left_for_later(order, checkpoint),
            skip=keep,
            definitions=self._definitions,
        )
        if report.failed:
            told = "; ".join(f"{name}: {why}" for name, why in sorted(report.failed.items()))
            raise StateError(f"not every value could be put back: {told}")
        self._definitions = dict(report.definitions)
        history = [name for name in report.restored if shellspace.is_hidden(name)]
        shellspace.place(self._shell, {n: self._shell.user_ns.pop(n) for n in history})
        inputs = {int(number): source for number, source in order["inputs"].items()}
        shellspace.set_history(self._shell, inputs, int(order["execution_count"]))
        shellspace.set_sources(self._shell, report.definitions.values(), inputs)
        warnings += ambient.apply_generators(state)
        self._restored = checkpoint
        self._placed = shellspace.capture_roots(self._shell)
        if order.get("watch"):
            self._capture.adopt(checkpoint, self._placed, self._definitions)
        return {"restored": sorted(report.restored), "warnings": warnings}

    def _made_again(
        self, order: Mapping[str, Any], checkpoint: Checkpoint, keep: Collection[str]
    ) -> tuple[set[str], list[str]]:
        """What of the namespace stays because cells that ran again gave it to what they made."""
        if not order["keep"] or order.get("ran") is None:
            return set(), []
        now = shellspace.capture_roots(self._shell)
        ran: Checkpoint = from_plain(order["ran"], Checkpoint)
        self._definitions |= made_again(ran, now, self._definitions, self._objects)
        self._capture.definitions.adopt(self._definitions)
        return stay(checkpoint, now, order["keep"], self._capture, kept=keep)

    def _left_for_later(self, order: Mapping[str, Any], checkpoint: Checkpoint) -> set[str]:
        above = order.get("lazy_above")
        if above is None:
            return set()
        # IPython takes a line for a magic where no variable has the magic's name
        magics: set[str] = set(self._shell.magics_manager.magics["line"])
        return checkpoint.variables.keys() - needed_at_once(checkpoint, above) - magics

    def needs(self, names: Collection[str] | None) -> bool:
        """Whether something has to be put back before code that uses these names runs."""
        return bool(self._waiting.needed(self._any_or(names)))

    def bring(self, names: Collection[str] | None) -> None:
        """Put back what code that uses these names can reach.

        Args:
            names: what it names, and the words of its strings; None where it may use anything.

        Raises:
            StateError: a value's copy does not load.
        """
        self._waiting.bring(self._any_or(names))

    def _with_put(self, touched: Collection[str] | None) -> Collection[str] | None:
        """With what was put back in mid-cell: the code need not name it."""
        return None if touched is None else {*touched, *self.midway.put}

    def _any_or(self, names: Collection[str] | None) -> Collection[str] | None:
        return None if self._bystanders.may_run() else names

    def roll_back(self, touched: Collection[str] | None) -> tuple[str, ...]:
        """Put back what changed since the last checkpoint, in this very kernel.

        Args:
            touched: names that the code used that ran since; None where it may have used any.

        Returns:
            Names that cannot be stored and stay as they are now.
        """
        if self._refused:
            return self._lay_back()
        touched = self._any_or(self._with_put(touched))
        change = self._capture.change(shellspace.capture_roots(self._shell), touched)
        shellspace.remove(self._shell, change.new)
        checkpoint = self._capture.current
        state = self._ambient_of(checkpoint.ambient)
        self._ambient.apply(state)
        placed: dict[str, Any] = {}
        report = restore(
            checkpoint,
            self._shell.user_ns,
            self._objects,
            names=change.restored,
            place=placed,
            definitions=self._capture.definitions.living(),
            defined=not change.definitions,
        )
        shellspace.place(self._shell, placed)
        self._capture.forget(change.new)
        self._capture.admit(placed)
        ambient.apply_generators(state)
        return tuple(sorted({*report.failed, *report.not_stored, *change.unknown}))

    def _lay_back(self) -> tuple[str, ...]:
        """Put back what was before a cell that is captured already."""
        last, self._refused = self._last, False
        if last is None:
            message = "nothing was captured"
            raise StateError(message)
        now, there = self._capture.current.variables, shellspace.capture_roots(self._shell)
        unstored = {
            name
            for name in self._capture.differs_from(last.before) & there.keys()
            if name in last.before.variables and last.before.variables[name].component is None
        }
        # what cannot be stored stays as the cell left it
        stays = {n: now[n] for n in unstored if n in now and now[n].component is None}
        target = msgspec.structs.replace(last.before, variables={**last.before.variables, **stays})
        self.lay_over(
            {
                "checkpoint": to_plain(target), "force": True, "magics": (), "inputs": {},
                "execution_count": self._shell.execution_count,
            }
        )  # fmt: skip
        self._pending = last.pending
        return tuple(sorted(unstored))

    def lay_over(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Make the namespace a checkpoint's, where it differs from the last capture.

        Args:
            order: as for `restore`, without `keep`; `ahead` as for `finish_restore`.
        """
        target: Checkpoint = from_plain(order["checkpoint"], Checkpoint)
        current = self._capture.current
        if not order.get("force"):
            names = [n for n in self._capture.differs_from(target) if n in target.variables]
            _refuse_incompatible(target, order.get("python", ""), names)
        changed = target.ambient != current.ambient
        answer = LayOver(
            self._shell, self._objects, self._capture, self._waiting, self._ambient
        ).lay(
            target,
            order,
            state=self._ambient_of(target.ambient) if changed else None,
            left_for_later=lambda checkpoint: self._left_for_later(order, checkpoint),
        )
        if changed:
            self._ambient.adopt()
        return answer

    def _ambient_of(self, ref: ObjectRef | None) -> dict[str, Any]:
        if ref is None:
            return {}
        state: dict[str, Any] = msgspec.json.decode(self._objects.get(ref))
        return state

    def _unchanged(self, checkpoint: Checkpoint) -> set[str]:
        """Names whose stored value is the one that was restored last: the objects may stay.

        They have to: what a cell rebuilt in the meantime may hold these very objects. What that
        cell changed in place comes back from the store.
        """
        before = self._restored
        if before is None:
            return set()
        now = shellspace.capture_roots(self._shell)
        changed = self._capture.change(now, None).restored
        absent = object()
        return {
            name
            for name, variable in checkpoint.variables.items()
            if variable.component is not None
            and name not in changed
            and name in before.variables
            and before.variables[name].component == variable.component
            and now.get(name, absent) is self._placed.get(name)
        }

    def finish_restore(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Take what is there now as the checkpoint that the next one is compared with."""
        checkpoint: Checkpoint = from_plain(order["checkpoint"], Checkpoint)
        roots = shellspace.capture_roots(self._shell)
        self._capture.adopt(checkpoint, roots, self._definitions)
        later = self._left_for_later(order, checkpoint)
        self._waiting.begin(later, self._definitions, order.get("ahead"))
        self._ambient.adopt()
        if order.get("spread"):
            ambient.spread_generators(order["spread"])
        # nothing of ours keeps the user's objects alive: a `del` is to delete
        self._restored, self._placed = None, {}
        return {}


def _refuse_incompatible(
    checkpoint: Checkpoint, stored_python: str, names: Collection[str] | None = None
) -> None:
    """Values of another Python minor, or another major of their package, need `--force`."""
    components = checkpoint.components
    if names is not None:
        wanted = {checkpoint.variables[name].component for name in names}
        components = {i: c for i, c in components.items() if i in wanted or c.definitions}
    packages = {top for component in components.values() for top in component.packages}
    python = ".".join(map(str, sys.version_info[:3]))
    found = incompatible(
        checkpoint, python, _versions(packages), stored_python=stored_python, names=names
    )
    if found is not None:
        raise found


def _refuse_incompatible_in_cell(checkpoint: Checkpoint) -> None:
    _refuse_incompatible(checkpoint, "")


def _versions(packages: Collection[str]) -> dict[str, str]:
    """Versions of packages by import name, of those that can be imported here."""
    versions = {}
    for name in packages:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
            versions[name] = package_version(name) or ""
    return versions
