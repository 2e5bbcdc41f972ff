"""What steps of a restart will see of states and resources though it is no longer so.

The journals tell before anything is executed: what each step read in the origin, and who has
written it since. Somebody else's write is a warning, for the step need not write; so is that of a
kept item of the same loop. Where only the failed items of a loop are to be executed, the latter
shows that items depend on one another: that is refused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import msgspec

from cellrail.notebook.actions import Path
from cellrail.notebook.plan import Fate
from cellrail.restarting import RestartPlan
from cellrail.run.past import Other, Past
from cellrail_state.chains import names_of
from cellrail_state.ledger import Ledger
from cellrail_state.model import JobFinished
from cellrail_state.turns import job_address

#: steps in a line, and lines, that are told
_SHOWN, _LINES = 3, 5


def with_state_since(
    decided: RestartPlan, past: Past, ledger: Ledger, *, failed_only: bool
) -> RestartPlan:
    """The plan, with what its steps will see though somebody has written it since.

    Args:
        decided: the restart.
        past: of its origin.
        ledger: the store's.
        failed_only: only the failed items of a loop are to be executed.
    """
    if past.is_empty:
        return decided
    items = decided.kept_items()
    for jobs in (decided.jobs, *items.values()):
        past.keep(jobs)
    found = _seen_otherwise(decided, items, past, ledger)
    built = [other for jobs in items.values() for other in past.built_on_dropped(jobs)]
    plan, inner = decided.plan, decided.inner
    ties = [
        (f"{other.who} has written {path!r} since {_listed(steps)} read it", other.hint)
        for (path, other), steps in found.items()
        if other.kept
    ]
    ties += [(other.who, other.hint) for other in built]
    if failed_only and ties and inner is not None:
        loop, told = inner.turns[-1].loop, "; ".join(_some([tie for tie, _ in ties]))
        refusal = f"--failed-only: the items of {loop!r} depend on one another: {told}"
        refusals = (*plan.refusals, refusal)
        plan = msgspec.structs.replace(plan, refusals=refusals, advice=ties[0][1])
    else:
        news = [
            _told(steps, path, other, decided.history.run_id)
            for (path, other), steps in found.items()
        ]
        news += [f"{other.who} ({other.hint})" for other in built]
        plan = msgspec.structs.replace(plan, warnings=(*plan.warnings, *_some(news)))
    return msgspec.structs.replace(decided, plan=plan)


def _seen_otherwise(
    decided: RestartPlan,
    items: Mapping[Path, Sequence[JobFinished]],
    past: Past,
    ledger: Ledger,
) -> dict[tuple[str, Other], list[str]]:
    """The steps that will see it so, by the path and by who has written it."""
    history, found = decided.history, defaultdict[tuple[str, Other], list[str]](list)
    labels = {
        decided.numbers[step.number]: step.label
        for step in decided.plan.steps
        if step.fate is Fate.EXECUTES and step.number in decided.numbers
    }
    places: dict[tuple[int, Path], str] = {(number, ()): "" for number in labels}
    places |= {place: job_id for place, job_id in history.turns.items() if place[0] in labels}
    ids = {path: {name for job in jobs for name in names_of(job)} for path, jobs in items.items()}
    kept = frozenset[str]().union(*ids.values())
    depth = max(map(len, ids), default=0)
    for (number, turns), job_id in sorted(places.items(), key=_in_order):
        if past.keeps(job_id):
            continue
        beside = kept - ids[turns[:depth]] if turns[:depth] in ids else frozenset[str]()
        for path, other in past.changed(number, turns, ledger, beside):
            found[path, other].append(job_address(labels[number], turns))
    return found


def _told(steps: Sequence[str], path: str, other: Other, run_id: str) -> str:
    seeing = "step {} sees" if len(steps) == 1 else "steps {} see"
    return (
        f"{seeing.format(_listed(steps))} {path!r} as run {run_id} saw it, though {other.who} "
        f"has written it since ({other.hint})"
    )


def _some(told: list[str]) -> list[str]:
    """Not a line for each of a thousand items."""
    more = [f"and {len(told) - _LINES} more like these"] if len(told) > _LINES else []
    return [*told[:_LINES], *more]


def _listed(steps: Sequence[str]) -> str:
    more = f" and {len(steps) - _SHOWN} more" if len(steps) > _SHOWN else ""
    return ", ".join(map(repr, steps[:_SHOWN])) + more


def _in_order(place: tuple[tuple[int, Path], str]) -> tuple[list[int], int]:
    (number, turns), _ = place
    return [turn.index for turn in turns], number
