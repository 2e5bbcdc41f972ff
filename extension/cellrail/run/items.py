"""Carries out the items of a parallel loop: so many at a time, each in a kernel of its own.

Each worker is a thread with a kernel; the thread that conducts the run waits for them, starts
their kernels and hears Ctrl-C. Each item is conducted by a machine of its own (`conduct_item`), and
its jobs are a branch in the run's journal. When an item ends the run, no further one begins, and
those that run are waited for; Ctrl-C interrupts them all, a second one kills their kernels.

What items need of the namespace and cannot have is told as early as it can be known: where the code
shows that they need it, the loop fails before the first one begins; where it does not, the cell
that misses it fails (`Ground.lost`). A cell that fails when it makes a value again in an item's
kernel is that item's failure.
"""

from __future__ import annotations

import copy
import queue
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from enum import Enum
from typing import Any

import msgspec

from cellrail.errors import RestartRefused
from cellrail.kernels.channel import ChannelClosed
from cellrail.kernels.cold import close_thread
from cellrail.kernels.kernel import Kernel
from cellrail.notebook import actions, control
from cellrail.notebook.model import Flow, Step
from cellrail.run.answers import Nobody
from cellrail.run.caching import Cache
from cellrail.run.client import CellResult
from cellrail.run.crew import INSTEAD, Ground, Place, ground_of, own_history
from cellrail.run.desk import Desk
from cellrail.run.interrupts import heard_by
from cellrail.run.itemrest import Rest, rest_of_item
from cellrail.run.limits import RunLimits, seconds_of
from cellrail.run.oneitem import ItemPerformer, NoClient
from cellrail.run.performer import ItemError, Performer, signal_name
from cellrail.run.recorder import Recorder
from cellrail.run.replay import KERNEL_DIED, REBUILD_FAILED, ItemPlan, Teller
from cellrail_state.errors import CannotRestore
from cellrail_state.model import Checkpoint, RunStatus


class Means(msgspec.Struct, frozen=True, kw_only=True):
    """What a run has to carry items out with."""

    flow: Flow
    recorder: Recorder
    notebook: Any
    kernel: Kernel
    limits: RunLimits
    #: each kernel's cells ask at a desk of their own
    desk: Desk
    cache: Cache | None
    sources: Mapping[int, str]
    news: Callable[[Step], dict[str, str]]
    digests: Callable[[Sequence[str]], dict[str, str]]
    clock: Callable[[], float]
    jitter: Callable[[], float]
    #: is told of each action that is performed
    tell: Callable[[actions.Action], None]
    #: is called when the notebook shows more
    refresh: Callable[[], None]
    #: `time.monotonic()` at which the whole run has to end
    deadline: float | None = None


class _Word(Enum):
    """What the thread that conducts the run is told, beside which kernels are wanted."""

    #: a worker has ended
    DONE = "done"
    #: Ctrl-C
    INTERRUPT = "interrupt"


class Items:
    """The items of one parallel loop."""

    def __init__(
        self,
        fork: actions.Fork,
        plans: Sequence[ItemPlan],
        ground: Ground,
        means: Means,
    ) -> None:
        """Prepare.

        Args:
            fork: the loop.
            plans: what becomes of each item.
            ground: what they begin on.
            means: the run's.
        """
        self._fork, self._plans, self._ground, self._means = fork, plans, ground, means
        self._ended: list[actions.ItemEnd | None] = [None] * len(plans)
        #: what each item left to be collected
        self.left: list[Checkpoint] = [Checkpoint()] * len(plans)
        #: the errors that each of them went on with, in words, by name
        self._raised: list[dict[str, str]] = [{} for _ in plans]
        #: the result that decided the run, where one did
        self.result: CellResult | None = None
        self._todo = deque(n for n, plan in enumerate(plans) if not plan.kept)
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._problem: BaseException | None = None
        self._inbox: queue.SimpleQueue[Future[Kernel] | _Word] = queue.SimpleQueue()
        self._places: list[Place] = []
        self._cells = [n for step in fork.block.steps() for n in step.cell_indices]
        shown = means.notebook["cells"]
        #: what the loop's cells showed before it began, and what each item shows, by cell
        self._shown_before = {n: list(shown[n]["outputs"]) for n in self._cells}
        self._shows: list[dict[int, Any]] = [{} for _ in plans]

    def run(self) -> actions.Joined:
        """Carry them all out, or until one ends the run.

        Raises:
            KeyboardInterrupt: it was interrupted while no item could tell.
            BaseException: what is no fault of the user's code.
        """
        kept = [job for plan in self._plans for job in plan.jobs]
        self._means.desk.forked(
            sorted(kept, key=lambda job: job.time),
            in_sequence=not self._fork.step.options.parallel,
        )
        for index, plan in enumerate(self._plans):
            if plan.kept:
                self._carry_out(index, None)
        workers = min(max(1, self._fork.step.options.parallel), len(self._todo))
        threads = [
            threading.Thread(target=self._work, args=(self._place(),), name=f"cellrail-item-{n}")
            for n in range(workers)
        ]
        # a Ctrl-C that struck between two lines could lose what a worker waits for
        with heard_by(lambda: self._inbox.put(_Word.INTERRUPT)):
            for thread in threads:
                thread.start()
            self._attend(len(threads))
        if self._problem is not None:
            raise self._problem
        ends = [item.end for item in self._ended if item is not None and item.end is not None]
        if self._stop.is_set() and not any(e.status is RunStatus.CANCELLED for e in ends):
            raise KeyboardInterrupt
        return actions.Joined(items=tuple(self._ended))

    @property
    def errors(self) -> dict[str, ItemError]:
        """The errors that the flow goes on with: of each name the last item's."""
        found = [
            (name, ItemError(item=place, told=told))
            for place, raised in enumerate(self._raised)
            for name, told in raised.items()
        ]
        return dict(found)

    # --- the thread that conducts the run ----------------------------------------------------

    def _attend(self, working: int) -> None:
        """Start kernels for the workers until the last one is done."""
        while working:
            try:
                # no longer: on some systems no signal is heard meanwhile
                word = self._inbox.get(timeout=1.0)
            except queue.Empty:
                continue
            if word is _Word.DONE:
                working -= 1
            elif word is _Word.INTERRUPT:
                self._interrupt()
            else:
                self._start(word)

    def _start(self, wanted: Future[Kernel]) -> None:
        try:
            if self._stop.is_set():
                raise KeyboardInterrupt
            wanted.set_result(self._means.kernel.another())
        except BaseException as error:  # noqa: BLE001 - the worker tells it
            wanted.set_exception(error)

    def _interrupt(self) -> None:
        if self._stop.is_set():
            for place in self._places:
                place.kill()
        self._stop.set()

    def _place(self) -> Place:
        means = self._means
        names: set[str] | None = set()
        for step in self._fork.block.steps():
            names = None if names is None or step.needs is None else names | step.needs
        place = Place(
            self._ground,
            flow=means.flow,
            recorder=means.recorder,
            notebook=means.notebook,
            sources=means.sources,
            ahead=None if names is None else sorted(names),
            start=self._start_kernel,
            stop=self._stop,
            seconds=lambda step: seconds_of(step, means.limits, means.deadline),
        )
        self._places.append(place)
        return place

    # --- workers -----------------------------------------------------------------------------

    def _start_kernel(self) -> Kernel:
        wanted: Future[Kernel] = Future()
        self._inbox.put(wanted)
        return wanted.result()

    def _work(self, place: Place) -> None:
        try:
            while (index := self._next()) is not None:
                self._carry_out(index, place)
        except BaseException as error:  # noqa: BLE001 - the conducting thread raises it
            if not self._stop.is_set():
                self._problem = self._problem or error
        finally:
            place.close()
            close_thread()
            self._inbox.put(_Word.DONE)

    def _next(self) -> int | None:
        with self._lock:
            over = self._stop.is_set() or self._problem is not None
            if over or any(item is not None and item.end is not None for item in self._ended):
                return None
            return self._todo.popleft() if self._todo else None

    def _carry_out(self, index: int, place: Place | None) -> None:
        plan, path = self._plans[index], self._fork.items[index]
        notebook = self._scratch()
        desk = self._means.desk.another()
        desk.started_on([*self._ground.jobs, *plan.jobs])
        rest = self._rest(plan)
        client = self._client(place, notebook, desk, rest)
        performer = self._performer(client, notebook, rest, place, desk)
        try:
            ended = self._conduct(path, performer, plan)
        finally:
            desk.give_up()
        skipped = ended.skipped or bool(ended.leaves)
        missing = self._fork.step.options.collect if skipped else ended.missing
        self.left[index] = plan.left if plan.left is not None else performer.left(missing)
        if plan.left is None:  # else the kernel that the loop stands in has them
            self._raised[index] = performer.errors
        if place is not None:
            place.worn = place.worn or not performer.clean
        with self._lock:
            self._ended[index] = ended
            if ended.end is not None:
                self.result = performer.result
            self._shows[index] = {n: notebook["cells"][n] for n in self._cells}
            self._show()

    def _rest(self, plan: ItemPlan) -> Rest:
        means = self._means
        return rest_of_item(self._fork, plan, self._ground, means.flow, means.recorder)

    def _client(self, place: Place | None, notebook: Any, desk: Desk, rest: Rest) -> Any:
        """An item's kernel on the loop's ground, where it can have one."""
        if place is None:
            return NoClient()
        if rest.refusal:
            return NoClient(rest.refusal)
        try:
            return place.ready(notebook, desk, rest.kept, rest.again)
        except (CannotRestore, RestartRefused) as error:
            lacks = f"{REBUILD_FAILED}: {error}"
        except ChannelClosed:
            lacks = KERNEL_DIED + signal_name(place.exit_code())
        if self._stop.is_set():  # it was interrupted, and has not begun
            raise KeyboardInterrupt
        return NoClient(lacks)

    def _performer(
        self, client: Any, notebook: Any, rest: Rest, place: Place | None, desk: Desk
    ) -> ItemPerformer:
        means = self._means
        return ItemPerformer(
            self._fork,
            self._ground,
            stop=self._stop,
            rest=rest,
            client=client,
            recorder=means.recorder,
            cells=notebook["cells"],
            sources=means.sources,
            limits=means.limits,
            lazy=place is not None and place.lazy,
            exit_code=place.exit_code if place is not None else lambda: None,
            news=means.news,
            digests=means.digests,
            desk=desk,
            cache=means.cache,
            clock=means.clock,
            deadline=means.deadline,
        )

    def _conduct(
        self, path: actions.Path, performer: ItemPerformer, plan: ItemPlan
    ) -> actions.ItemEnd:
        replay = plan.replay
        teller: Teller = Nobody() if plan.told else self._means.recorder
        machine = control.conduct_item(self._fork, path, jitter=self._means.jitter)
        answer: Any = None
        while True:
            try:
                action = machine.send(answer)
            except StopIteration as stop:
                ended: actions.ItemEnd = stop.value
                return ended
            if replay is not None and replay.takes(action):
                answer = replay.perform(action, performer, teller)
                continue
            with self._lock:
                self._means.tell(action)
            answer = performer.perform(action)

    # --- outputs -----------------------------------------------------------------------------

    def _scratch(self) -> Any:
        """The notebook with cells of its own for the loop's steps."""
        notebook = copy.copy(self._means.notebook)
        notebook["cells"] = list(notebook["cells"])
        for index in self._cells:
            cell = copy.deepcopy(notebook["cells"][index])
            cell["outputs"], cell["execution_count"] = [], None
            notebook["cells"][index] = cell
        return notebook

    def _show(self) -> None:
        """Show under the loop's cells what items have shown so far, in their order."""
        for index in self._cells:
            cell = self._means.notebook["cells"][index]
            shown = [found[index] for found in self._shows if index in found]
            outputs = [output for found in shown for output in found["outputs"]]
            cell["outputs"] = [*self._shown_before[index], *outputs]
            cell["execution_count"] = shown[-1]["execution_count"]
            if "cellrail" in shown[-1]["metadata"]:
                cell["metadata"]["cellrail"] = shown[-1]["metadata"]["cellrail"]
        self._means.refresh()


def carry_out(
    fork: actions.Fork, plans: Sequence[ItemPlan] | None, performer: Performer, means: Means
) -> actions.Joined:
    """The items of a parallel loop, each in a kernel of its own.

    Args:
        fork: the loop.
        plans: what becomes of each item; None where all are executed.
        performer: of the kernel that the loop stands in.
        means: the run's.
    """
    plans = plans or [ItemPlan()] * len(fork.items)
    delta = performer.fork(fork)
    if delta.failure:
        return actions.Joined(refused=_refusal(delta.failure))
    history = own_history(means.recorder)
    ground = ground_of(
        means.flow,
        history,
        history.chain_of_fork(fork.step.number, fork.path),
        fork.block,
        fork.path,
        lazy_above=means.limits.lazy_above,
    )
    if ground.refusals and not all(plan.kept for plan in plans):
        return actions.Joined(refused=_refusal(*ground.refusals, INSTEAD))
    items = Items(fork, plans, ground, means)
    joined = items.run()
    performer.take(fork, items.left, items.errors, items.result)
    return joined


def _refusal(*why: str) -> str:
    return f"its items cannot have kernels of their own: {'; '.join(why)}"
