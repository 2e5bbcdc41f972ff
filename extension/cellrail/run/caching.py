"""`--cache`: a job is kept instead of executed, where an equal one was executed lately.

Two jobs are equal where their code is, and everything that it can reach: the values of variables,
functions and classes, local modules, the versions of the packages that these come from, Python,
the files that `--reads` names, and the environment variables that the code reads. That is one key.
A value that cannot be stored cannot be compared, and code that may use any name has no key at all.
Other files, the clock, services, and what modules and child processes read of the environment are
not looked at: that is what the duration is for. Files that `--writes` names have to be as the job
left them.

Why a job was executed all the same, and why none will be kept instead of it, is told in its record.

An index beside the catalog leads from a key to a job; the job's own journal decides. A job is
remembered only if all that it did can be done again by loading what it wrote: it succeeded, its
checkpoint is whole, it asked the run for nothing (`Desk.asked`: another run answers otherwise),
defined no functions or classes, and left the process as it was (generators, working directory,
options), new imports apart. A path into the run's shared folder leads to other files in each run,
and nobody is asked where it is used: a job that can reach one has no key.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import blake3
import msgspec

from cellrail.notebook.actions import Path
from cellrail.notebook.environs import environment_of
from cellrail.notebook.firsts import first_uses
from cellrail.notebook.model import PARAMETERS, Flow, Step
from cellrail.notebook.options import duration_told
from cellrail.notebook.reads import names_of
from cellrail.notebook.shelllines import parsed
from cellrail_state.errors import StateError
from cellrail_state.model import JobFinished, StepStatus, Verdict, to_plain
from cellrail_state.steps import Sources
from cellrail_state.store import Store

_FOLDER = "cache"
#: another number where jobs were remembered that are not any more: they are not found then
_RULES = 2
#: what shows a cell's last values: a job that is loaded shows none
_LAST_VALUES = frozenset({"_", "__", "___", "Out", "_oh"})


class _Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What the index says of a key."""

    job_id: str


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a job that may be kept."""

    key: str = ""
    #: the job to be kept; None where there is none
    job: JobFinished | None = None
    #: why there is none
    why: str = ""


class Cache:
    """The jobs of a store that need not be executed again."""

    def __init__(
        self,
        store: Store,
        flow: Flow,
        *,
        modules: Callable[[Step], Mapping[str, str]],
        forced: Callable[[Step, Path], bool],
        clock: Callable[[], float],
    ) -> None:
        """Open the index.

        Args:
            store: the store.
            flow: the run's steps.
            modules: digests of the local modules that a step imports, now.
            forced: whether a job is executed whatever is known.
            clock: seconds since the epoch.
        """
        self._store, self._flow, self._clock = store, flow, clock
        self._modules, self._forced = modules, forced

        def records(run_id: str) -> Any:
            return store.records(run_id, verify=True)

        self._sources = Sources(records=records, owned=lambda _: False, content=store.objects.get)

    # --- keys --------------------------------------------------------------------------------

    def order(self, step: Step) -> dict[str, Any]:
        """What a kernel is asked for a job's key."""
        # of its line nothing counts: a loop's items are not what one of them depends on
        names = names_of(step.body)
        anything = names.opaque or names.looks_up or step.needs is None
        anew = _bound_anew(step)
        needs = (names.reads | names.writes | names.mentions) - anew
        return {
            "command": "inputs",
            "names": None if anything else sorted(needs.union(*names.definitions.values())),
            "plain": sorted((names.reads | names.writes) - anew),
            "imports": sorted({name.partition(".")[0] for name in step.imports}),
            "environment": self._environment(step),
        }

    def _environment(self, step: Step) -> list[str] | None:
        """Environment variables that the step's code reads; None for any.

        Code of functions and classes that it names counts, wherever in the notebook that stands.
        """
        found, known = list[frozenset[str] | None](), set[int]()
        waiting = [step]
        while waiting:
            one = waiting.pop()
            if one.number in known:
                continue
            known.add(one.number)
            found.append(environment_of(one.body))
            named = {*one.reads, *one.mentions}.union(*one.definitions.values())
            waiting += [other for other in self._flow.steps if named & other.definitions.keys()]
        if None in found:
            return None
        return sorted({name for names in found for name in names or ()})

    def key(
        self, step: Step, answer: Mapping[str, Any], *, files: Mapping[str, str] | None = None
    ) -> str:
        """The key of a job; "" where it has none.

        Args:
            step: its step.
            answer: the kernel's, to `order`.
            files: digests of the files that `--reads` names.
        """
        if answer.get("why"):
            return ""
        told = {
            "rules": _RULES,
            "source": step.source_hash,
            "outputs": sorted(step.options.outputs),
            "modules": dict(sorted(self._modules(step).items())),
            "files": dict(sorted((files or {}).items())),
            **{
                name: answer[name]
                for name in ("inputs", "absent", "packages", "python", "environment")
            },
        }
        return blake3.blake3(msgspec.json.encode(told, order="sorted")).hexdigest()

    # --- jobs --------------------------------------------------------------------------------

    def find(
        self, step: Step, path: Path, key: str, *, made: Mapping[str, str] | None = None
    ) -> Found:
        """The job to be kept instead of executing a step.

        Args:
            step: the step.
            path: the turns that it lies in.
            key: of the job.
            made: digests of the files that `--writes` names: they have to be as the job left them.
        """
        if self._forced(step, path):
            return Found(key=key, why="it was to be executed: it was named, or stands at the cut")
        file = self._file(key)
        try:
            entry = msgspec.json.decode(file.read_bytes(), type=_Entry)
            job = self._sources.job(entry.job_id)
        except (OSError, msgspec.DecodeError, StateError):
            # it was pruned, or is another's
            return Found(key=key, why="no job with the same code and the same inputs is known")
        why = ""
        if self._clock() - job.time > step.options.cache:
            why = f"the equal job is older than {duration_told(step.options.cache)}"
        elif job.made != dict(made or {}):
            why = "files that --writes names are not as the equal job left them"
        elif job.cache_key != key:
            why = "no job with the same code and the same inputs is known"
        why = why or self._not_loaded(job, step)
        return Found(key=key, why=why) if why else Found(key=key, job=job)

    def _not_loaded(self, job: JobFinished, step: Step) -> str:
        """Why loading what a job wrote would not do; "" where it does."""
        # what was bound to the value that it had is not told in the delta
        untold = sorted(_bound_anew(step) - job.delta.variables.keys())
        if untold:
            return f"the equal job bound {', '.join(untold)} to the value that was there already"
        needed, opaque = self._needed_by_others(step)
        for name, variable in job.delta.variables.items():
            lost = variable.verdict is not Verdict.STORED
            if lost and (needed is None or name in needed):
                who = f"step {opaque} may use any name" if needed is None else "a step uses it"
                return f"{name} of the equal job is not stored, and {who}"
        shows = any(name.startswith("Out[") for name in job.delta.variables)
        if shows and (needed is None or needed & _LAST_VALUES):
            who = f"step {opaque} may use any name" if needed is None else "a step uses Out"
            return f"it ends with a value, which only an execution puts into Out, and {who}"
        refs = [ref for component in job.delta.components.values() for ref in component.refs()]
        refs += [job.outputs] if job.outputs is not None else []
        if not all(map(self._store.objects.contains, refs)):
            return "what the equal job stored is gone"
        return ""

    def _needed_by_others(self, step: Step) -> tuple[set[str] | None, str]:
        """Names that other steps may use; None for any, and the label of a step that may."""
        needed = set(step.options.collect)
        for other in self._flow.steps:
            if other.number == step.number:
                continue
            names = _needs(other)
            if names is None:
                return None, other.label
            needed |= names
        return needed, ""

    def outputs(self, job: JobFinished) -> list[dict[str, Any]]:
        """A kept job's outputs."""
        if job.outputs is None:
            return []
        found: list[dict[str, Any]] = msgspec.json.decode(self._store.objects.get(job.outputs))
        return found

    @staticmethod
    def take(job: JobFinished) -> dict[str, Any]:
        """What a kernel is told to have a kept job's namespace."""
        stored = {n: v for n, v in job.delta.variables.items() if v.verdict is Verdict.STORED}
        return {
            "command": "take",
            "components": to_plain(job.delta.components),
            "variables": to_plain(stored),
            "deleted": list(job.delta.deleted),
            "written": list(job.delta.written),
        }

    @staticmethod
    def unfit(job: JobFinished, drift: Sequence[str], asked: Sequence[str]) -> str:
        """Why no later job can be kept instead of one that was executed; "" where it can.

        Args:
            job: as it is to be committed.
            drift: what it changed of the process beside variables and imports.
            asked: what its cell has asked the run for.
        """
        delta = job.delta
        names = {n.partition("#")[0] for c in delta.components.values() for n in c.definitions}
        defined = ", ".join(sorted(names))
        recorded = " and ".join(job.effects.kinds) if job.effects is not None else ""
        whole = job.status is StepStatus.SUCCESS and job.error is None
        told = {
            "it did not succeed": not whole,
            f"there is no checkpoint after it: {delta.failure}": delta.failure,
            f"it defines {defined}": defined,
            f"it has recorded {recorded}": recorded,
            f"it asked the run for {', '.join(asked)}": asked,
            f"it ran {', '.join(job.magics)}": job.magics,
            f"{', '.join(delta.missed)} changed unseen": delta.missed,
            f"it changed the process's {', '.join(drift).replace('_', ' ')}": drift,
        }
        return next((why for why, holds in told.items() if holds), "")

    def remember(self, job: JobFinished) -> None:
        """A job was executed that may be kept next time, as it was committed."""
        file = self._file(job.cache_key)
        made = file.with_name(f".{uuid.uuid4().hex}.tmp")
        # an index that cannot be written costs an execution, nothing else
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            made.write_bytes(msgspec.json.encode(_Entry(job_id=job.job_id)))
            made.replace(file)

    def _file(self, key: str) -> Any:
        return self._store.path / _FOLDER / key[:2] / key


def _needs(step: Step) -> frozenset[str] | None:
    """Names that a step may use; None for any."""
    if step.name != PARAMETERS or step.opaque or step.looks_up:
        return step.needs
    # the values that are injected are written out: they use no name of the notebook
    used = step.reads | step.writes | step.mentions
    return used.union(*step.definitions.values())


def _bound_anew(step: Step) -> set[str]:
    """Names that the code binds before it reads them: what they held does not matter."""
    tree = parsed(step.body)
    if tree is None:
        return set()
    reads, binds = first_uses(tree)
    return binds - reads - frozenset().union(*step.definitions.values())
