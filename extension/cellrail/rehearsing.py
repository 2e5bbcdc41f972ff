"""Leading the machine to a cut inside a loop before anything runs, to see whether that can be done.

What the new run would keep is looked up in the origin's journal as the run would do it; nothing is
recorded, shown or executed. So a restart that cannot get to its cut is refused before it begins,
and its plan says the same.
"""

from __future__ import annotations

from typing import Any

from cellrail.errors import RestartRefused
from cellrail.notebook import actions, control
from cellrail.notebook.blocks import blocks_of
from cellrail.notebook.model import Flow
from cellrail.notebook.plan import Fate, Plan
from cellrail.run.answers import Nobody
from cellrail.run.replay import Replay, from_loop
from cellrail.run.session import branches_taken
from cellrail_state.errors import JournalDamaged


def why_not_led(flow: Flow, plan: Plan, replay: Replay | None) -> tuple[str, ...]:
    """Why the machine cannot be led to a cut; nothing where it can."""
    try:
        rehearse(flow, plan, replay)
    except (RestartRefused, JournalDamaged) as error:
        return (str(error),)
    return ()


def rehearse(
    flow: Flow, plan: Plan, replay: Replay | None, keys: tuple[str, ...] | None = None
) -> None:
    """Lead the machine to a cut.

    Args:
        flow: the notebook as it is now.
        plan: the restart's.
        replay: a `Rehearsal` of it; None where the cut lies in no loop.
        keys: of the items that are to be evaluated anew; None where they are not known yet: then
            what comes behind them is not looked at.

    Raises:
        RestartRefused: the items do not lead to the cut, or the origin has not what would be kept.
        JournalDamaged: the origin's journal does not tell what was decided.
    """
    if replay is None:
        return
    numbers = {step.number for step in plan.steps if step.fate is Fate.EXECUTES}
    blocks = blocks_of([step for step in flow.steps if step.number in numbers])
    machine = control.conduct(blocks, taken=branches_taken(flow, plan), apart=(replay.apart,))
    nobody, answer = Nobody(), None
    while True:
        try:
            action: actions.Action = machine.send(answer)
        except StopIteration as stop:
            end: actions.End = stop.value
            raise RestartRefused(
                "the jobs that would be kept do not lead to the cut: the run ends "
                f"{f'at {end.step}' if end.step else 'before it'}",
                hint=from_loop(replay.target),
            ) from None
        answer = _answer(action, replay, nobody, keys)
        if answer is _LIVE:
            return


#: it would be carried out: the cut is reached
_LIVE: Any = object()


def _answer(
    action: actions.Action, replay: Replay, nobody: Nobody, keys: tuple[str, ...] | None
) -> Any:
    if replay.takes(action):
        return replay.perform(action, nobody, nobody)
    anew = isinstance(action, actions.Ask) and action.purpose is actions.Purpose.FOREACH
    if anew and keys is not None and not replay.reached:
        return actions.Told(value=bool(keys), keys=keys)
    return _LIVE
