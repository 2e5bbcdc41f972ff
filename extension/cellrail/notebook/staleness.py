"""Which kept steps are no longer what they were when the origin executed them, and why. Pure.

A step is stale if it is edited (also since a run that the origin itself kept jobs of, such as items
of a loop, has made them), new, gone or moved, if a local module that it imports changed, or if it
reads what a changed parameter or a stale step left. In a live run also what was executed out
of order counts: the namespace of such a moment was never that of the notebook read downwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cellrail.notebook.changes import why_changed
from cellrail.notebook.fingerprint import is_blank
from cellrail.notebook.model import PARAMETERS, Step
from cellrail.notebook.origin import Made, SideBySide
from cellrail_state.model import StepStatus


def stale(both: SideBySide, cut: int) -> list[tuple[int, str]]:
    """Kept steps that are no longer what they were, with the reason."""
    found: list[tuple[int, str]] = []
    tainted: dict[str, str] = {name: f"parameter `{name}`" for name in both.request.changed}
    highest = -1
    for place, step in enumerate(both.steps[:cut]):
        old = both.old(place)
        reason = changed(both, place)
        if not reason and old is not None and old.number < highest:
            reason = "moved"
        highest = max(highest, old.number if old is not None else -1)
        if not reason and step.name != PARAMETERS:
            reason = _reads_stale(both, place, tainted)
        if reason:
            found.append((place, f"step {step.label!r}: {reason}"))
            written = old.written if old is not None else tuple(step.writes)
            for name in written:
                tainted.setdefault(name, f"step {step.label!r}")
        elif step.name == PARAMETERS:
            continue
        elif old is not None:
            # a later sound step that binds a name anew ends the taint
            for name in set(old.written) & set(tainted) - set(both.request.changed):
                if name not in step.mutates:
                    del tainted[name]
    found += _gone(both, cut)
    if both.request.live:
        found += _out_of_order(both, cut)
    return found


def changed(both: SideBySide, place: int) -> str:
    """Whether a step itself is another one than the origin executed: how; "" where it is not."""
    step, old = both.steps[place], both.old(place)
    if old is None:
        return "" if step.skips or is_blank(step.body) else "new step"
    reason = why_changed(step, old.info) or since_made(step, old.made)
    if reason:
        return reason
    today = both.request.modules.get(step.number, {})
    for module in sorted(set(today) | set(old.info.modules)):
        if today.get(module) != old.info.modules.get(module):
            return f"local module {module} changed"
    return ""


def since_made(step: Step, made: Iterable[Made]) -> str:
    """What of a step is not as a kept job of it was made; "" where it is."""
    for one in made:
        reason = why_changed(step, one.info)
        if reason:
            return f"{reason} since {one.address} was made"
    return ""


def _reads_stale(both: SideBySide, place: int, tainted: Mapping[str, str]) -> str:
    if not tainted:
        return ""
    reached = both.reached[place]
    if reached is None:
        name, source = next(iter(tainted.items()))
        return f"may read anything, and {source} changed"
    for name in sorted(reached & set(tainted)):
        source = tainted[name]
        if source.startswith("parameter"):
            return f"{source} changed"
        return f"depends on `{name}` of {source}"
    return ""


def _gone(both: SideBySide, cut: int) -> list[tuple[int, str]]:
    """Steps that ran before a kept one in the origin, and are not kept."""
    matched = {old.number for old in both.pairs.values()}
    kept = {
        both.pairs[step.number].number: place
        for place, step in enumerate(both.steps[:cut])
        if step.number in both.pairs
    }
    found = []
    for old in both.origin:
        if old.number in kept or not old.job_id:
            continue
        # a kept step that came after it was made on a namespace that it had touched
        after = [place for number, place in kept.items() if number > old.number]
        if after:
            told = "comes later now" if old.number in matched else "is absent from the notebook"
            found.append((min(after), f"step {old.info.label!r} {told}"))
    return found


def _out_of_order(both: SideBySide, cut: int) -> list[tuple[int, str]]:
    """Steps that did not make the namespace at the cut in the order of the notebook."""
    at_cut = both.old(cut)
    made = both.made_before(at_cut.number if at_cut is not None else both.behind)
    found = []
    highest = 0
    for place, step in enumerate(both.steps):
        old = both.old(place)
        if old is None or not old.job_id or place == cut:
            continue
        stands = old.job_id in made
        if place > cut:
            if stands and old.sequence:
                found.append((cut, f"step {step.label!r} was executed before the cut"))
            continue
        # a step that is skipped now has made nothing
        missing = not stands and old.status is not StepStatus.SKIPPED
        if missing or old.sequence < highest:
            found.append((place, f"step {step.label!r} was executed out of order"))
        highest = max(highest, old.sequence)
    return found
