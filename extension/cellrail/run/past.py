"""What the steps of a restarted run see of states and resources: those of its cut.

Of each version of a key it is known who has written it:

* a job that the run keeps;
* a job of the origin, or of the runs that that was restarted from, which the run does not keep: it
  is *dropped*, and what it has set is undone (but for what the origin itself had dropped without
  undoing it: `--state current`, an open notebook);
* this run;
* anybody else: a person, another run, the origin itself where it has gone on since.

A step sees what this run has set. Where this run has set nothing, it sees what it saw in the
origin, or what is there now where it did not look there; and in place of what a dropped job has set
what stood there before that. Its write replaces what dropped jobs have set since, and nothing else:
it is refused where anybody else has written since, and where a kept job has that does not stand
before the step (an item beside it; a step behind an `--always` cell), or that has built on what is
undone. A step that has not read before it writes replaces whatever is there.
"""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping

import msgspec

from cellrail.run.desk import Job
from cellrail_state.chains import names_of
from cellrail_state.errors import StateError
from cellrail_state.history import RunHistory
from cellrail_state.ledger import Expected, Key, Ledger
from cellrail_state.ledgerlines import path_of
from cellrail_state.model import Effects, JobFinished, Turn, Written
from cellrail_state.store import Store
from cellrail_state.turns import job_address

_AS_NOW = "restart with --state current: as it is now"


class Story:
    """What the origin's jobs, and those of the runs before it, did with one key."""

    def __init__(self) -> None:
        #: what stood there, by version
        self.values: dict[int, Written] = {}
        #: which job wrote a version
        self.writers: dict[int, JobFinished] = {}
        #: the version that stood there for the job that wrote one
        self.below: dict[int, int] = {}


class Other(msgspec.Struct, frozen=True, kw_only=True):
    """Who has written a key that a step has to find as it was."""

    #: in words
    who: str
    #: a job that is kept
    kept: bool = False
    hint: str = ""


class Past:
    """What the steps of a run saw in its origin, and what is still so."""

    def __init__(
        self,
        history: RunHistory,
        *,
        runs: Mapping[str, float],
        numbers: Mapping[int, int],
        flow: str,
    ) -> None:
        """Know the origin.

        Args:
            history: the origin.
            runs: the origin and the runs that it was restarted from, each with the time when its
                restart began: what it has done since is another run's.
            numbers: the origin's number of each step.
            flow: the flow's id today.
        """
        self._history, self._runs, self._numbers = history, runs, numbers
        self._flow = flow
        self._kept: set[str] = set()
        #: in an open notebook, place of the last kept job in the order of executions
        self._last = 0
        #: runs of which nobody knows any more what they wrote when
        self._gone: set[str] = set()

    def keep(self, jobs: Iterable[JobFinished]) -> None:
        """The run keeps these jobs."""
        for job in jobs:
            self._kept.update(names_of(job))
            if _run_of(job) == self._history.run_id:
                self._last = max(self._last, job.sequence)

    def keeps(self, job_id: str) -> bool:
        """Whether the run keeps a job."""
        return not {job_id, self._loop_ends.get(job_id, "")}.isdisjoint(self._kept)

    @property
    def is_empty(self) -> bool:
        """Whether no step has looked at states and resources."""
        return not self._stories

    # --- what a step sees --------------------------------------------------------------------

    def sees(
        self, job: Job | None, key: Key, ledger: Ledger, *, run_id: str, beside: Collection[str]
    ) -> tuple[Written, Expected]:
        """What a step sees under a key, and what its write replaces where it has read it.

        Args:
            job: the step's; None between jobs.
            key: of a resource.
            ledger: the store's.
            run_id: the run.
            beside: ids of kept jobs that do not stand before the step.
        """
        entry = ledger.last(*key)
        now = entry.written if entry is not None else Written(kind=key[0], path=key[1], version=0)
        own = ledger.has_written(run_id, *key)
        if (old := self._saw(job, key)) is not None:
            seen = self._undone(key, old)
            stands = seen.version
        else:
            seen = self._undone(key, now) if self._is_told(key, now.version, ledger) else now
            writers = self._stories[key].writers
            stands = max((v for v, w in writers.items() if not self._is_undone(w)), default=0)
        other = self._built_on_undone(key, stands, ledger, beside) or self._other(
            key, seen.version, ledger, beside, own=own
        )
        if other is None:
            expected = Expected(version=now.version)
        else:
            expected = Expected(version=now.version, spoilt_by=other.who, hint=other.hint)
        return now if own else msgspec.structs.replace(seen, path=key[1]), expected

    def looked(self, job: Job | None, key: Key) -> bool:
        """Whether the job's step has read a key in the origin."""
        return self._saw(job, key) is not None

    def _saw(self, job: Job | None, key: Key) -> Written | None:
        """What the job's step saw under a key in the origin; None where it did not look."""
        if job is None or job.number not in self._numbers:
            return None
        for written in self._reads(self._numbers[job.number], job.turns):
            if (written.kind, self._today(written)) == key:
                return written
        return None

    def _reads(self, number: int, turns: tuple[Turn, ...]) -> tuple[Written, ...]:
        """What a step has read in the origin, by its number there.

        Not what it read before an open notebook went back, where steps executed since are kept.
        """
        history = self._history
        reader = history.reader_of(number, turns)
        if reader and reader.sequence < self._last and history.is_gone(reader.job_id):
            return ()
        return history.reads_of(number, turns)

    def _today(self, written: Written) -> str:
        """The path that it has under the flow's id of today."""
        return path_of(written, self._history.started.flow, self._flow)

    def _undone(self, key: Key, seen: Written) -> Written:
        """What stood there before what dropped jobs have set."""
        story, version = self._stories[key], seen.version
        while version in story.writers and self._is_undone(story.writers[version]):
            version = story.below[version]
        if version == seen.version:
            return seen
        before = Written(kind=seen.kind, path=seen.path, version=0, type=seen.type)
        return before if version == 0 else story.values.get(version, seen)

    def _is_undone(self, writer: JobFinished) -> bool:
        """Whether what a job has set is not there for the run."""
        history = self._history
        if self._is_kept(writer):
            return False
        if _run_of(writer) == history.run_id:
            # an open notebook that goes back takes nothing of that back
            return not history.is_gone(writer.job_id)
        # what had been dropped before, the origin had undone unless it was to see all
        return history.started.options.get("state") != "current" or history.has(writer.job_id)

    def _is_told(self, key: Key, version: int, ledger: Ledger) -> bool:
        """Whether it is the journals' version, and not that of a path with another name since."""
        writer = self._stories[key].writers.get(version)
        return writer is not None and _run_of(writer) in ledger.writers_since(*key, version - 1)[:1]

    # --- who has written since ---------------------------------------------------------------

    def _other(
        self,
        key: Key,
        version: int,
        ledger: Ledger,
        beside: Collection[str],
        *,
        own: bool = False,
    ) -> Other | None:
        """Who has written a key after a version and is not undone, unless the run has since."""
        story = self._stories[key]
        if beside:
            for later in sorted(v for v in story.writers if v > version):
                writer = story.writers[later]
                if not self._names(writer).isdisjoint(beside):
                    return self._kept_one(writer)
        if own:  # a step of this run has seen to that
            return None
        other = None
        for later, run_id in enumerate(ledger.writers_since(*key, version), version + 1):
            known = story.writers.get(later)
            if run_id not in self._gone and (known is None or _run_of(known) != run_id):
                who = f"run {run_id}" if run_id else "a person"
                other = Other(who=who, hint=_AS_NOW)  # whose value stands there is told
        return other

    def _built_on_undone(
        self, key: Key, version: int, ledger: Ledger, beside: Collection[str]
    ) -> Other | None:
        """A kept job beside a step, where what it has set (this version) holds what is undone.

        Perhaps of the step itself, which would count on what it had done before.
        """
        story, kept = self._stories[key], None
        writers = story.writers
        while version in writers and self._is_told(key, version, ledger):
            if self._is_undone(writers[version]):
                return self._kept_one(kept) if kept is not None else None
            kept, version = writers[version], story.below[version]
            if self._names(kept).isdisjoint(beside):
                return None
        return None

    def changed(
        self, number: int, turns: tuple[Turn, ...], ledger: Ledger, beside: Collection[str]
    ) -> Iterator[tuple[str, Other]]:
        """What a step will see though somebody has written it since: the path, and who has.

        Args:
            number: the origin's, of the step.
            turns: those that it is in.
            ledger: the store's.
            beside: ids of kept jobs that do not stand before it.
        """
        for written in self._reads(number, turns):
            key = (written.kind, self._today(written))
            other = self._other(key, self._undone(key, written).version, ledger, beside)
            if other is not None:
                yield key[1], other

    def built_on_dropped(self, jobs: Iterable[JobFinished]) -> Iterator[Other]:
        """Kept items of a loop that have read what dropped ones had set, in words.

        Args:
            jobs: of the items.
        """
        for job in jobs:
            for value in job.effects.reads if job.effects is not None else ():
                path = self._today(value)
                writer = self._stories[value.kind, path].writers.get(value.version)
                if writer is None or self._is_kept(writer):
                    continue
                if self._history.fork_of(writer.turns) == self._history.fork_of(job.turns):
                    told = f"{self._history.address_of(job)}, which is kept, has read what "
                    who = f"{told}{self._history.address_of(writer)} had set under {path!r}"
                    yield msgspec.structs.replace(self._kept_one(job), who=who)

    def _kept_one(self, job: JobFinished) -> Other:
        fork = self._history.fork_of(job.turns)
        if fork is None:
            hint = _AS_NOW
        else:
            depth = len(fork[1])
            loop = job_address(job.turns[depth].loop, fork[1])
            quoted = f"'{loop}'" if fork[1] else loop
            hint = f"--from {quoted}: every item again; or {_AS_NOW}"
        who = f"{self._history.address_of(job)}, which is kept,"
        return Other(who=who, kept=True, hint=hint)

    def _is_kept(self, job: JobFinished) -> bool:
        return bool(self._names(job) & self._kept)

    def _names(self, job: JobFinished) -> set[str]:
        """The ids that tell what becomes of a job: an ended loop keeps its items with it."""
        return names_of(job) | {self._loop_ends.get(job.job_id, job.job_id)}

    @functools.cached_property
    def _loop_ends(self) -> dict[str, str]:
        return self._history.loop_ends()

    @functools.cached_property
    def _stories(self) -> Mapping[Key, Story]:
        found: defaultdict[Key, Story] = defaultdict(Story)
        for job in self._jobs():
            effects = job.effects or Effects()
            seen = {(v.kind, v.path): v.version for v in (*effects.reads, *effects.replaced)}
            for value in (*effects.writes, *effects.reads, *effects.replaced):
                found[value.kind, self._today(value)].values[value.version] = value
            for value in effects.writes:
                story = found[value.kind, self._today(value)]
                story.writers[value.version] = job
                last = value.version - 1
                story.below[value.version] = min(last, seen.get((value.kind, value.path), last))
        return found

    def _jobs(self) -> Iterator[JobFinished]:
        for run_id, until in self._runs.items():
            try:
                jobs = self._history.jobs_of(run_id)
            except StateError:  # it was pruned
                self._gone.add(run_id)
                continue
            yield from (job for job in jobs if job.time <= until)


def _run_of(job: JobFinished) -> str:
    return job.job_id.rpartition("/")[0]


def past_of(
    store: Store,
    history: RunHistory,
    *,
    numbers: Mapping[int, int],
    flow: str,
    began: float = math.inf,
) -> Past:
    """What the steps of a run that restarts another one saw there.

    Args:
        store: the store.
        history: the origin.
        numbers: the origin's number of each step.
        flow: the flow's id today.
        began: when the run began (seconds since the epoch); by default it has not yet.
    """
    return Past(history, runs=_ancestors(store, history, began), numbers=numbers, flow=flow)


def _ancestors(store: Store, history: RunHistory, began: float) -> dict[str, float]:
    """The run and those that it was restarted from, as far as they are known, newest first.

    Each with the time when its restart began.
    """
    started, found = history.started, {history.run_id: began}
    while started.origin is not None and started.origin.run_id not in found:
        found[started.origin.run_id] = started.time
        try:
            started = store.started(started.origin.run_id)
        except StateError:  # it was pruned
            break
    return found
