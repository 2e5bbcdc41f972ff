"""`%flow restart` and `undo`: the namespace of this kernel goes back to a moment.

With `--detach` a restart is a run of its own, in the background, as on the command line.
"""

from __future__ import annotations

from typing import Any

import msgspec

from cellrail.errors import StepNotFound, UserError
from cellrail.magics.opened import OpenNotebook
from cellrail.magics.words import Words, split

#: what only a run of its own can do
_OF_RUNS = ("failed-only", "reeval", "cancel-origin", "keep-waiting", "state", "cwd", "timeout")


def flow_restart(here: OpenNotebook, words: list[str]) -> Any:
    """Put the namespace back to before a step, or restart as a run of its own (`--detach`)."""
    line = split(
        words, most=2, parameters=True,
        flags={
            "plan", "force", "widen", "run", "detach", "failed-only", "reeval", "cancel-origin",
            "keep-waiting",
        },
        values={"from", "to", "state", "cwd", "timeout"},
    )  # fmt: skip
    run, cut = line.at(0) or here.default_run(), line.options.get("from")
    if "detach" in line:
        return _restart_apart(here, run, line)
    _refuse_of_runs(run, line)
    try:
        decided, flow = here.app().plan_here(
            run,
            notebook=here.notebook(),
            from_step=cut,
            to=line.options.get("to"),
            force="force" in line,
            widen="widen" in line,
        )
    except StepNotFound as error:
        raise _not_saved(here, cut) or error from None
    earlier = "" if line.given or not decided.plan.refusals else _earlier_run(here, cut)
    if earlier:
        advice = f"run {earlier} has executed it: %flow restart {earlier} --from {cut}"
        plan = msgspec.structs.replace(decided.plan, earliest="", by_force=False, advice=advice)
        decided = msgspec.structs.replace(decided, plan=plan)
    if "plan" in line:
        print("\n".join(decided.plan.lines()))
        return None
    decided.plan.check()
    if decided.inner is not None:
        message = f"{decided.inner.label} lies inside a loop, which a cell executes as a whole"
        raise UserError(
            message,
            hint=f"--from {decided.inner.turns[0].loop} here, or as a run of its own: "
            f"%flow restart {run} --from {decided.inner.label} --detach",
        )
    _go_back(here, decided, flow)
    _run_on(here, decided.plan, flow, run_them="run" in line)
    return None


def _not_saved(here: OpenNotebook, cut: str | None) -> UserError | None:
    """The refusal of a cell that was executed here, and that the file of the notebook lacks."""
    from cellrail.notebook.address import find_step

    if here.live is None or cut is None:
        return None
    states = here.app().history(here.live.run_id).states
    try:
        find_step(cut.partition("[")[0], [state.info for state in states])
    except StepNotFound:
        return None
    message = f"{cut!r} was executed here, and is not in the notebook as it is saved"
    return UserError(message, hint="save the notebook, then say it again")


def _earlier_run(here: OpenNotebook, cut: str | None) -> str:
    """Where this kernel's live run has not executed the cut, the newest run that has; "" for none.

    Such is a kernel that was started in the place of one that was killed.
    """
    notebook = here.notebook()
    if here.live is None or cut is None or notebook is None:
        return ""
    app, live = here.app(), str(here.live.run_id)
    step = cut.partition("[")[0]
    return "" if app.has_executed(live, step) else app.newest_with(notebook, step)


def _refuse_of_runs(run: str, line: Words) -> None:
    """Refuse what a restart in this kernel cannot do."""
    given = [f"--{name}" for name in _OF_RUNS if name in line]
    given += ["-p"] if line.parameters else []
    given += ["--label"] if "label" in line else []
    given += [f"{line.given[1]!r}, an output"] if len(line.given) > 1 else []
    if given:
        raise UserError(
            f"{given[0]} is for a run of its own; here the open notebook goes on",
            hint=f"in the background: %flow restart {run} … --detach",
        )


def _restart_apart(here: OpenNotebook, run: str, line: Words) -> Any:
    if "run" in line:
        raise UserError("--run executes cells here, --detach in the background: choose one")
    options: dict[str, Any] = {
        "from_step": line.options.get("from"), "to": line.options.get("to"),
        "cwd": line.options.get("cwd"), "state": line.options.get("state", "origin"),
        "timeout": line.seconds("timeout"), "parameters": line.parameters, "labels": line.labels,
        **{
            name.replace("-", "_"): name in line
            for name in ("force", "widen", "failed-only", "reeval", "cancel-origin", "keep-waiting")
        },
    }  # fmt: skip
    if "plan" in line:
        print("\n".join(here.app().restart(run, plan=True, **options).lines()))
        return None
    return here.app().restart(run, line.at(1), detach=True, **options)


def _go_back(here: OpenNotebook, decided: Any, flow: Any) -> None:
    from cellrail.run import here as this_kernel

    here.begin()
    shell, app = here.shell, here.app()
    state = here.state(app)
    here.undo = this_kernel.moment(shell, state)
    here.left = app.history(here.live.run_id).chain if here.live is not None else []
    putback = decided.putback("")
    try:
        this_kernel.restart_here(
            state,
            putback,
            flow=flow,
            execution_count=shell.execution_count,
            run_cell=here.run_silently,
            desk=here.live.desk if here.live is not None else None,
            keyed=here.live.recorder.key if here.live is not None else str,
        )
        here.went_back(decided, flow)
    except BaseException:
        this_kernel.go_back(shell, state, here.undo, execution_count=shell.execution_count)
        raise
    remarks = [*decided.plan.warnings, *putback.remarks]
    print("".join(f"{remark}\n" for remark in remarks), end="")


def _run_on(here: OpenNotebook, plan: Any, flow: Any, *, run_them: bool) -> None:
    """Say from which cell to run on, or execute the cells under this one."""
    from cellrail.run.here import cells_to_run

    cells = cells_to_run(plan, flow)
    if not run_them:
        label = cells[0].label if cells else "the end"
        print(f"the namespace is as it was right before {label!r}; run on from there")
        return
    for step in cells:
        print(f"-- {step.label}")
        if not here.run_as(step):
            break


def flow_undo(here: OpenNotebook, words: list[str]) -> None:
    """Take the last restart here back."""
    from cellrail.run import here as this_kernel

    del words
    if here.undo is None:
        message = "there is no restart to take back"
        raise UserError(message)
    app = here.app()
    state = here.state(app)
    then, here.undo = here.undo, None
    count = here.shell.execution_count
    remarks = this_kernel.go_back(here.shell, state, then, execution_count=count)
    if here.live is not None:
        here.live.went_back(here.left)
    print("".join(f"{remark}\n" for remark in remarks), end="")
    print("the namespace is as it was before the restart")
