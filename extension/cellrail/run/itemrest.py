"""An item of a parallel loop that goes on behind jobs which are kept.

Its kernel begins on the loop's ground and on what the kept jobs have stored. What they made or
changed and no checkpoint holds they make again there, as far as the rest of the item can reach it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from cellrail.notebook import actions
from cellrail.notebook.model import Flow
from cellrail.run.again import Segment, segments_of
from cellrail.run.crew import Ground, own_history
from cellrail.run.recorder import Recorder
from cellrail.run.remaking import item_of, remade_in_item
from cellrail.run.replay import ItemPlan
from cellrail_state.model import JobFinished, Verdict


class Rest(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of an item."""

    #: its jobs
    kept: tuple[JobFinished, ...] = ()
    #: those of them that run again
    again: tuple[Segment, ...] = ()
    #: names that it may miss: why they are not there, and what to do
    lost: Mapping[str, str] = {}
    #: why it cannot go on; "" where it can
    refusal: str = ""


def rest_of_item(
    fork: actions.Fork, plan: ItemPlan, ground: Ground, flow: Flow, recorder: Recorder
) -> Rest:
    """How an item goes on.

    Args:
        fork: the loop.
        plan: what becomes of the item.
        ground: what the loop's items begin on.
        flow: the run's steps.
        recorder: the run's journal.
    """
    if plan.replay is None or plan.kept or not plan.jobs:
        return Rest(kept=plan.jobs)
    planned, why = remade_in_item(flow, fork, plan, ground.jobs)
    instead = f"restart from the item itself: --from '{item_of(fork, plan)}'"
    made = {name for again in planned.values() for name in again.names}
    jobs = (*ground.jobs, *plan.jobs)
    again = segments_of((), jobs, own_history(recorder), planned) if planned else []
    return Rest(
        kept=plan.jobs,
        again=tuple(again),
        lost={
            name: f"{told}; {instead}"
            for name, told in _left_behind(plan.jobs).items()
            if name not in made
        },
        refusal=f"it cannot go on behind its kept jobs: {'; '.join((*why, instead))}" * bool(why),
    )


def _left_behind(kept: Sequence[JobFinished]) -> dict[str, str]:
    """What the kept jobs of an item made, and no checkpoint holds: why the item misses it."""
    found = dict[str, str]()
    for job in kept:
        for name, variable in job.delta.variables.items():
            found.pop(name, None)
            if variable.verdict is not Verdict.STORED:
                found[name] = (
                    f"`{name}` is lost: {variable.reason}, and the item goes on behind the step "
                    "that made it"
                )
    return found
