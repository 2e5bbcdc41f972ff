"""Kernels for the items of a parallel loop: each begins on the namespace that the loop began on.

A kernel serves several items one after another only where its namespace was put back exactly
(`cellrail.run.fitness`); after a failure, or where cells had to run again for what cannot be
stored, the next item gets a fresh one. Kernels are started by the thread that may: on Linux a
process dies with the thread that started it.

What cannot be stored, and must not be made again (`cellrail.notebook.rebuilding`), no further
kernel can have: where the items need it, none of them begins.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from cellrail.errors import InternalError
from cellrail.kernels.kernel import Kernel
from cellrail.notebook.actions import Path
from cellrail.notebook.address import find_step
from cellrail.notebook.beside import plan_beside
from cellrail.notebook.blocks import Block
from cellrail.notebook.model import Flow, Step
from cellrail.notebook.plan import Fate
from cellrail.run.again import Segment, execute_again, how_it_ended, segments_of
from cellrail.run.client import CellClient
from cellrail.run.desk import Desk
from cellrail.run.items_again import ItemsAgain, items_again
from cellrail.run.orders import Order, loop_root
from cellrail.run.origins import origin_step
from cellrail.run.putback import PutBack
from cellrail.run.recorder import Recorder
from cellrail.run.remaking import loop_under_way
from cellrail_state.errors import CannotRestore
from cellrail_state.history import RunHistory
from cellrail_state.model import Checkpoint, JobFinished, ObjectRef, Variable
from cellrail_state.steps import Sources

#: what to do where items need what cannot be had
INSTEAD = "make it in the loop, or in a cell of its own that does nothing else"


class Ground(msgspec.Struct, frozen=True, kw_only=True):
    """The namespace that a loop's items begin on, and how a further kernel gets it."""

    checkpoint: Checkpoint
    #: the chain of jobs that made it
    jobs: tuple[JobFinished, ...]
    #: cells that have to run again in each kernel, for what cannot be stored
    segments: tuple[Segment, ...] = ()
    #: sources by execution count
    inputs: dict[int, str] = {}
    #: of the loops around, and of this one, the items that have to be evaluated again
    items: tuple[ItemsAgain, ...] = ()
    #: why no further kernel can have it; empty where one can
    refusals: tuple[str, ...] = ()
    #: names that a further kernel does not have, and nobody knows whether it needs: why, and what
    #: to do
    lost: dict[str, str] = {}
    lazy_above: int | None = None

    def putback(self, further: Sequence[JobFinished], again: Sequence[Segment] = ()) -> PutBack:
        """How it comes back, with what further jobs have made of it; some of them run again."""
        checkpoint = Checkpoint.fold((job.delta for job in further), before=self.checkpoint)
        return PutBack(
            segments=(*self.segments, *again),
            checkpoint=checkpoint,
            jobs=(*self.jobs, *further),
            inputs=self.inputs,
            # the loop's own kernel holds these values
            force=True,
            lazy_above=self.lazy_above,
            items=self.items,
        )


def own_history(recorder: Recorder) -> RunHistory:
    """The run as its journal tells it so far."""
    store = recorder.store

    def content(ref: ObjectRef) -> bytes:
        return bytes(store.objects.get(ref))

    return RunHistory(
        recorder.run_id, Sources(records=store.records, owned=lambda _: True, content=content)
    )


def ground_of(
    flow: Flow,
    history: RunHistory,
    jobs: Sequence[JobFinished],
    loop: Block,
    path: Path = (),
    *,
    lazy_above: int | None = None,
) -> Ground:
    """What the items of a loop begin on.

    Args:
        flow: the notebook's steps.
        history: the run, read up to the beginning of the loop.
        jobs: the chain of jobs up to there.
        loop: the loop.
        path: the turns that it is in.
        lazy_above: bytes; larger values may be put back when they are needed.
    """
    checkpoint = Checkpoint.fold(job.delta for job in jobs)
    states, step = history.states, loop.step
    outermost = find_step(path[0].loop, flow.steps) if path else step
    under_way = loop_under_way(flow, history, jobs, outermost.label) if path else None

    def variables_before(number: int) -> Mapping[str, Variable]:
        if number >= step.number:
            return checkpoint.variables
        if under_way is not None and number >= outermost.number:
            return under_way.before.variables
        return history.checkpoint_before(number).variables

    around: list[tuple[Step, Path, int | None]] = [
        (find_step(turn.loop, flow.steps), path[:depth], turn.index)
        for depth, turn in enumerate(path)
    ]
    items = items_again(
        flow, history, [*around, (step, path, None)], checkpoint=checkpoint, jobs=jobs
    )
    again = {told.order["root"] for told in items}
    beside = plan_beside(
        flow,
        [origin_step(history, state) for state in states],
        loop=loop,
        evaluated=[
            found
            for found, turns, _ in [*around, (step, path, None)]
            if loop_root(found, turns) in again
        ],
        variables_before=variables_before,
        around=outermost if path else None,
        turns=under_way.kept if under_way is not None else (),
    )
    turns = under_way.planned(beside.turns, flow, jobs) if under_way is not None else {}
    refusals = [told.told for told in beside.lost if told.certain]
    refusals += [told.refusal for told in items if told.refusal]
    sources = {state.job_id: state.info.source for state in states}
    return Ground(
        checkpoint=checkpoint,
        jobs=tuple(jobs),
        segments=tuple(segments_of(beside.again, jobs, history, turns)),
        inputs={
            job.execution_count: job.source or sources.get(job.job_id, "")
            for job in jobs
            if job.execution_count is not None
        },
        items=tuple(items),
        refusals=tuple(dict.fromkeys(refusals)),
        lost={told.name: f"{told.told}; {INSTEAD}" for told in beside.lost if not told.certain},
        lazy_above=lazy_above,
    )


class Place:
    """One worker's kernel, and the next when that one is worn."""

    def __init__(
        self,
        ground: Ground,
        *,
        flow: Flow,
        recorder: Recorder,
        notebook: Any,
        sources: Mapping[int, str],
        ahead: list[str] | None,
        start: Callable[[], Kernel],
        stop: threading.Event,
        seconds: Callable[[Step], float | None],
        what: str = "a parallel item",
    ) -> None:
        """Prepare.

        Args:
            ground: what items begin on.
            flow: the notebook's steps.
            recorder: the run's journal.
            notebook: whose cells run again where they have to.
            sources: what is executed where a cell's own source is masked, by cell index.
            ahead: names that the loop's steps use; None where they may use any.
            start: starts a kernel.
            stop: once it is set, what runs is interrupted.
            seconds: that a cell may take that runs again; None for no limit.
            what: that the kernel is for, in words.
        """
        self._what, self._seconds = what, seconds
        self._ground, self._recorder, self._notebook = ground, recorder, notebook
        self._steps = {step.number: step for step in flow.steps}
        self._sources, self._ahead, self._start, self._stop = sources, ahead, start, stop
        self._kernel: Kernel | None = None
        #: the next item needs a fresh kernel
        self.worn = False

    @property
    def lazy(self) -> bool:
        """Whether restored values wait until a cell can reach them."""
        ground = self._ground
        return ground.lazy_above is not None and not (ground.segments or ground.items)

    def exit_code(self) -> int | None:
        """How the kernel's process ended; None while it runs."""
        return self._kernel.exit_code() if self._kernel is not None else None

    def kill(self) -> None:
        """End the kernel at once."""
        if self._kernel is not None:
            self._kernel.kill()

    def ready(
        self,
        notebook: Any,
        desk: Desk,
        further: Sequence[JobFinished] = (),
        again: Sequence[Segment] = (),
    ) -> CellClient:
        """A kernel on the loop's ground.

        Args:
            notebook: its cells take the outputs.
            desk: answers what they ask.
            further: jobs of the item that are kept.
            again: those of them that run again, for what cannot be stored.

        Raises:
            CellrailError: no kernel can be had.
            CannotRestore: a cell that has to run again fails.
            RestartRefused: what is stored cannot be put back, or the items are others by now.
            ChannelClosed: the kernel died meanwhile.
        """
        putback = self._ground.putback(further, again)
        fresh = self.worn or putback.segments
        if self._kernel is not None and not fresh and self._kernel.alive():
            client = CellClient(self._kernel, notebook, reply=desk.reply, stop=self._stop)
            if not self._put_back(client, desk, putback):
                return client
            putback = self._ground.putback(further, again)
        self.close()
        self._kernel, self.worn = self._start(), bool(putback.segments)
        self._kernel.wait_ready_alike()
        hello = self._kernel.hello
        self._recorder.kernel(
            pid=self._kernel.pid,
            started=self._kernel.started,
            python=hello["python"],
            implementation=hello["implementation"],
            packages=hello["packages"],
        )
        client = CellClient(self._kernel, notebook, reply=desk.reply, stop=self._stop)
        self._put_back(client, desk, putback)
        return client

    def _put_back(self, client: CellClient, desk: Desk, putback: PutBack) -> list[str]:
        """Put the ground back; what is not as in a fresh kernel."""
        for segment in putback.segments:
            desk.stands_before(segment.planned.job_id)
            orders = putback.before(client, segment)
            self._run_again(client, segment, orders, desk)
            putback.after(segment)
        desk.stands_before("")
        putback.finish(client, self._ahead, keyed=self._recorder.key)
        answer = client.command({"command": "fit"})
        if "error" in answer:
            raise InternalError(f"a kernel could not be looked at: {answer['error']}")
        faults: list[str] = answer["faults"]
        return faults

    def _run_again(
        self, client: CellClient, segment: Segment, before: list[Order], desk: Desk
    ) -> None:
        """Run a cell again for what cannot be stored; nothing of it is committed."""
        planned = segment.planned
        step, began = self._steps[planned.number], time.monotonic()
        result = execute_again(
            client, desk, segment, step, self._notebook["cells"], sources=self._sources,
            before=before, seconds=self._seconds(step),
        )  # fmt: skip
        if result is not None:
            made = f", to make {', '.join(planned.names)}" if planned.names else ""
            told = f"step {planned.label!r} ran again for {self._what}{made}"
            raise CannotRestore(f"{told}: {how_it_ended(result)}")
        if planned.fate is Fate.REBUILDS:
            self._recorder.rebuilt(planned.number, planned.names, time.monotonic() - began)

    def close(self) -> None:
        """End the kernel."""
        if self._kernel is not None:
            self._kernel.shutdown()
            self._kernel = None
