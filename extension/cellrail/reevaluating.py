"""What `--reeval` would find, before anything runs: a loop's items, evaluated on its namespace.

The expression needs the notebook's variables, so a kernel is started for it; nothing is recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from cellrail.errors import RestartRefused
from cellrail.kernels.supply import Wanted, cold
from cellrail.notebook.address import find_step
from cellrail.notebook.apart import targets
from cellrail.notebook.model import Flow
from cellrail.notebook.plan import Plan
from cellrail.restarting import RestartPlan
from cellrail.run import prepare
from cellrail.run.client import CellClient
from cellrail.run.orders import loop_root


def with_items(
    decided: RestartPlan, flow: Flow, *, kernel: str, cwd: Path, settings: Mapping[str, Any]
) -> Plan:
    """The plan, with the items that are new, gone and kept.

    Args:
        decided: a restart with `reeval`.
        flow: the notebook as it is now.
        kernel: a kernel specification's name.
        cwd: the working directory.
        settings: what the kernel's hooks are told.

    Raises:
        RestartRefused: the items cannot be evaluated.
    """
    cut, plan = decided.inner, decided.plan
    if cut is None or plan.refusals:
        return plan
    loop, around = find_step(cut.turns[-1].loop, flow.steps), cut.turns[:-1]
    putback = decided.putback("")
    if putback.segments:
        told = ", ".join(segment.planned.label for segment in putback.segments)
        return msgspec.structs.replace(
            plan, warnings=(*plan.warnings, f"the items are known when {told} ran again")
        )
    wanted = Wanted(
        name=kernel, cwd=cwd, environment=prepare.kernel_environment(), hash_seed=decided.hash_seed
    )
    made = cold(wanted).kernel
    try:
        made.wait_ready(settings)
        client = CellClient(made, {"cells": [], "metadata": {}})
        putback.finish(client)
        answer = client.command(
            {
                "command": "items",
                "source": loop.options.foreach.partition(" in ")[2].strip(),
                "names": targets(loop.options.foreach),
                "key": loop.options.key,
                "root": loop_root(loop, around),
            }
        )
    finally:
        made.shutdown()
    raised = answer.get("raised")
    if raised is not None or "error" in answer:
        why = f"{raised['name']}: {raised['value']}" if raised else str(answer["error"])
        raise RestartRefused(f"the items of {loop.label!r} cannot be evaluated anew: {why}")
    old, new = decided.keys_before(cut), tuple(answer["keys"])
    return msgspec.structs.replace(
        plan,
        items={
            "new": tuple(key for key in new if key not in old),
            "gone": tuple(key for key in old if key not in new),
            "kept": tuple(key for key in new if key in old),
        },
    )
