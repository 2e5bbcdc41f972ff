"""Putting the namespace back as it stood right before a cut.

Without cells to run again this is one restore. Otherwise the notebook is walked in order: an
`--always` or rebuilding cell k runs on the namespace as it stood right before k; what it is run for
is then kept, and at the end the checkpoint of the cut is laid over everything else:

* of a rebuilding cell only the names that cannot be stored are kept;
* of an `--always` cell every name it wrote is kept, unless a later kept step wrote it too.

At last, parameters that changed are assigned anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from cellrail.errors import RestartRefused
from cellrail.notebook.plan import Fate
from cellrail.run.again import Again, Segment
from cellrail.run.items_again import ItemsAgain
from cellrail.run.orders import Order
from cellrail_state.model import Checkpoint, Delta, JobFinished, Verdict, to_plain


class Commander(Protocol):
    """Has a kernel's hooks do something between cells."""

    def command(self, order: dict[str, Any]) -> dict[str, Any]:
        """Do it; the answer."""


class PutBack:
    """Brings one origin's namespace back in a fresh kernel."""

    def __init__(
        self,
        *,
        segments: Sequence[Segment],
        checkpoint: Checkpoint,
        jobs: Sequence[JobFinished],
        inputs: Mapping[int, str],
        python: str = "",
        force: bool = False,
        assignment: str = "",
        parameters_step: int = 0,
        parameters_job: str = "",
        lazy_above: int | None = None,
        counted: int = 0,
        spread: str = "",
        items: Sequence[ItemsAgain] = (),
    ) -> None:
        """Know what to do.

        Args:
            segments: cells to run again, in order.
            checkpoint: the namespace right before the cut.
            jobs: the chain of jobs that made it.
            inputs: sources of the chain by execution count.
            python: version of the Python that wrote the values; "" where it is not known.
            force: load them under another Python, or another major of a package, too.
            assignment: code that assigns the changed parameters; "" where none changed.
            parameters_step: number of the `parameters` step.
            parameters_job: the origin's job of that step.
            lazy_above: bytes; larger values may be put back when they are needed (the driver tells
                of each cell's). None: everything is put back at once.
            counted: the kernel has counted so many executions, those included that left nothing.
            spread: generators of random numbers go on differently for each such word; "" for as
                they were.
            items: of loops that are under way those that have to be evaluated again.
        """
        self._items = items
        self._spread = spread
        self.segments = segments
        self.parameters_step = parameters_step
        self.parameters_job = parameters_job
        self._checkpoint = checkpoint
        self.jobs = jobs
        self._inputs = inputs
        self._assignment = assignment
        self._python = python
        self._force = force
        self._counted = counted
        #: names of `--always` cells, and what was made again since no checkpoint holds it
        self._protected: set[str] = set()
        self._made: set[str] = set()
        self._ran: Checkpoint | None = None
        self._again = Again()
        #: what could not be put back as it was, in words
        self.remarks: list[str] = []
        #: large values wait until a cell can reach them; what cells made anew may hold them already
        self.lazy_above = None if segments or items else lazy_above

    def before(self, client: Commander, segment: Segment) -> list[Order]:
        """Restore the namespace that a segment's cell runs on.

        Returns:
            What is to be done right before the cell: a loop's variable gets its item.
        """
        self._restore(client, segment.checkpoint, segment.jobs, watch=True)
        return self._again.enter(
            segment, lambda order: self._ask(client, order), self._kept(segment.checkpoint)
        )

    def after(self, segment: Segment) -> None:
        """Remember what of the cell stays."""
        again = segment.planned.fate is Fate.REBUILDS
        (self._made if again else self._protected).update(segment.protects)
        self._ran = segment.ran

    def _kept(self, checkpoint: Checkpoint) -> set[str]:
        """Names whose values stay when a checkpoint is laid over; none that was deleted since."""
        known = checkpoint.variables
        # bound to what can be stored since, as a loop's variable is to its next item
        made = {n for n in self._made & known.keys() if known[n].verdict is not Verdict.STORED}
        return made | (self._protected & known.keys())

    def finish(
        self,
        client: Commander,
        ahead: Sequence[str] | None = None,
        *,
        keyed: Callable[[str], str],
    ) -> Delta | None:
        """Restore the namespace before the cut.

        Args:
            client: the kernel's.
            ahead: names that the cells to come use, in order; None where they may use any.
            keyed: a key of a loop's item as records have it.

        Returns:
            The delta of newly assigned parameters, if any.

        Raises:
            RestartRefused: the namespace, or the items of a loop, cannot be had.
        """
        self._restore(client, self._checkpoint, self.jobs, self.lazy_above, self._counted)
        made = self._kept(self._checkpoint)
        for items in self._items:
            # cells that ran again have them, with what they made of each
            if self._again.has(items.order["root"]) and made.issuperset(items.binds):
                continue
            items.check(self._ask(client, items.order), keyed)
        checkpoint = to_plain(self._checkpoint)
        order = {"command": "finish", "checkpoint": checkpoint, "lazy_above": self.lazy_above}
        self._ask(client, {**order, "ahead": ahead, "spread": self._spread})
        if not self._assignment:
            return None
        answer = self._ask(client, {"command": "assign", "source": self._assignment})
        delta: Delta = msgspec.convert(answer["delta"], Delta)
        return delta

    def _restore(
        self,
        client: Commander,
        checkpoint: Checkpoint,
        jobs: Sequence[JobFinished],
        lazy_above: int | None = None,
        counted: int = 0,
        *,
        watch: bool = False,
    ) -> None:
        counts = [job.execution_count for job in jobs if job.execution_count is not None]
        upto = max([*counts, counted])
        answer = self._ask(
            client,
            {
                "command": "restore",
                "checkpoint": to_plain(checkpoint),
                "keep": sorted(self._kept(checkpoint)),
                "magics": setup_magics(jobs),
                "inputs": {str(n): source for n, source in self._inputs.items() if n <= upto},
                "execution_count": upto + 1,
                "python": self._python,
                "force": self._force,
                "lazy_above": lazy_above,
                "ran": to_plain(self._ran) if self._ran is not None else None,
                # a cell runs on it: what it changes in place is told apart from what stays
                "watch": watch,
            },
        )
        self._ran = None
        self.remarks += [told for told in answer["warnings"] if told not in self.remarks]

    def _ask(self, client: Commander, order: dict[str, Any]) -> dict[str, Any]:
        answer = client.command(order)
        if "error" in answer:
            raise not_put_back(answer["error"])
        return answer


def not_put_back(why: str) -> RestartRefused:
    """The refusal of a restart whose namespace cannot be had."""
    return RestartRefused(
        f"the checkpoint could not be put back: {why}",
        hint="restart from an earlier step, or ask `cellrail doctor`",
    )


def setup_magics(jobs: Sequence[JobFinished]) -> list[str]:
    """The set-up magics of the chain in order, immediate repetitions once."""
    lines: list[str] = []
    for job in jobs:
        for line in job.magics:
            if line not in lines[-1:]:
                lines.append(line)
    return lines
