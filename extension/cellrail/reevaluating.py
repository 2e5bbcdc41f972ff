"""What `--reeval` would find, before anything runs: a loop's items, evaluated on its namespace.

The expression needs the notebook's variables, so a kernel is started for it; nothing is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from cellrail.errors import RestartRefused
from cellrail.inside import InnerCut
from cellrail.kernels.supply import Wanted, cold
from cellrail.notebook.address import find_step
from cellrail.notebook.foreach import split
from cellrail.notebook.model import Flow
from cellrail.notebook.plan import Plan
from cellrail.rehearsing import rehearse
from cellrail.restarting import RestartPlan, told_items
from cellrail.run import prepare
from cellrail.run.client import CellClient
from cellrail.run.masking import Masker
from cellrail.run.orders import loop_root
from cellrail.run.putback import PutBack
from cellrail.run.replay import Rehearsal, not_evaluated
from cellrail_state.errors import JournalDamaged
from cellrail_state.keys import KeyRing
from cellrail_state.model import StepError


def with_items(
    decided: RestartPlan,
    flow: Flow,
    *,
    kernel: str,
    cwd: Path,
    settings: Mapping[str, Any],
    keyring: KeyRing,
    assignment: str = "",
) -> Plan:
    """The plan, with the items that are new, gone and kept; refused where they do not lead to it.

    Args:
        decided: a restart with `reeval`.
        flow: the notebook as it is now.
        kernel: a kernel specification's name.
        cwd: the working directory.
        settings: what the kernel's hooks are told.
        keyring: the user's.
        assignment: code that assigns the changed parameters; "" where none changed.
    """
    cut, plan = decided.inner, decided.plan
    if cut is None or plan.refusals:
        return plan
    putback = decided.putback(assignment)
    if putback.segments:
        told = ", ".join(segment.planned.label for segment in putback.segments)
        return msgspec.structs.replace(
            plan, warnings=(*plan.warnings, f"the items are known when {told} ran again")
        )
    wanted = Wanted(
        name=kernel, cwd=cwd, environment=prepare.kernel_environment(), hash_seed=decided.hash_seed
    )
    try:
        masker, seal = (
            Masker({str(n): word for n, word in enumerate(settings["secrets"])}),
            keyring.key(),
        )
        keys = _evaluated(
            cut, flow, putback, wanted, settings, keyed=lambda key: masker.key(key, seal)
        )
        rehearse(flow, plan, decided.replay(Rehearsal), keys)
    except (RestartRefused, JournalDamaged) as error:
        return plan.refused(error)
    old, steps, replay = decided.keys_before(cut), plan.steps, decided.replay()
    loop = cut.turns[-1].loop
    if cut.fork is not None and cut.fork.step.label == loop and replay is not None:
        reason = told_items(cut, replay.item_plans(cut.fork), keys)
        steps = tuple(
            msgspec.structs.replace(step, reason=reason) if step.label == loop else step
            for step in steps
        )
    return msgspec.structs.replace(
        plan,
        steps=steps,
        items={
            "new": tuple(key for key in keys if key not in old),
            "gone": tuple(key for key in old if key not in keys),
            "kept": tuple(key for key in keys if key in old),
        },
    )


def _evaluated(
    cut: InnerCut,
    flow: Flow,
    putback: PutBack,
    wanted: Wanted,
    settings: Mapping[str, Any],
    *,
    keyed: Callable[[str], str],
) -> tuple[str, ...]:
    """Keys of the items as they are now.

    Raises:
        RestartRefused: they cannot be evaluated, or the namespace cannot be had.
    """
    loop, around = find_step(cut.turns[-1].loop, flow.steps), cut.turns[:-1]
    target, items = split(loop.options.foreach)
    made = cold(wanted).kernel
    try:
        made.wait_ready(settings)
        client = CellClient(made, {"cells": [], "metadata": {}})
        putback.finish(client, keyed=keyed)
        answer = client.command(
            {
                "command": "items",
                "source": items,
                "target": target,
                "key": loop.options.key,
                "root": loop_root(loop, around),
            }
        )
    finally:
        made.shutdown()
    if "error" in answer:
        raise not_evaluated(loop, around, StepError(name="cellrail", value=str(answer["error"])))
    if answer.get("raised") is not None:
        raise not_evaluated(loop, around, msgspec.convert(answer["raised"], StepError))
    return tuple(map(keyed, answer["keys"]))
