"""`%flow` commands that begin headless runs, and go on with runs."""

from __future__ import annotations

from typing import Any

from cellrail.errors import UserError
from cellrail.magics.opened import OpenNotebook
from cellrail.magics.words import Words, split


def flow_run(here: OpenNotebook, words: list[str]) -> Any:
    """Run a notebook headless; without one, the open notebook as it is saved."""
    line = split(
        words, most=2, parameters=True, lists={"secret"},
        flags={"plan", "detach", "strict", "shared"},
        values={"to", "only", "base", "cwd", "timeout", "kernel", "kernels"},
    )  # fmt: skip
    notebook = line.at(0) or here.notebook()
    if notebook is None:
        message = "this front end does not tell which notebook it has open"
        raise UserError(message, hint="%flow run NOTEBOOK, or %flow config notebook=PATH")
    options: dict[str, Any] = {
        **{name: line.options.get(name) for name in ("to", "only", "base", "cwd", "kernel")},
        "kernels": line.options.get("kernels", "cold"), "timeout": line.seconds("timeout"),
        "strict": True if "strict" in line else None, "shared": "shared" in line,
        "parameters": line.all_parameters, "labels": line.labels, "secrets": line.secrets,
    }  # fmt: skip
    return _begun(line, here.app().run, notebook, options)


def flow_rerun(here: OpenNotebook, words: list[str]) -> Any:
    """Execute what changed since a run, as a new headless run."""
    line = split(
        words, most=2, parameters=True, flags={"plan", "detach"}, lists={"changed"},
        values={"cwd", "timeout"},
    )  # fmt: skip
    if not line.given:
        message = "%flow rerun needs a run"
        raise UserError(message, hint="%flow rerun etl.ipynb: its newest run; %flow runs")
    changed = [word for told in line.lists.get("changed", ()) for word in told.split(",") if word]
    options = {
        "changed": changed, "cwd": line.options.get("cwd"), "timeout": line.seconds("timeout"),
        "parameters": line.parameters, "labels": line.labels,
    }  # fmt: skip
    return _begun(line, here.app().rerun, line.given[0], options)


def _begun(line: Words, begin: Any, subject: Any, options: dict[str, Any]) -> Any:
    """The run, ended or (`--detach`) begun; with `--plan` what would happen is printed."""
    if "plan" in line:
        print("\n".join(begin(subject, plan=True, **options).lines()))
        return None
    return begin(subject, line.at(1), detach="detach" in line, **options)


def flow_recover(here: OpenNotebook, words: list[str]) -> Any:
    """Go on with a run after a crash; without one, list those that are interrupted."""
    line = split(words, most=1, flags={"plan", "all"})
    app, run = here.app(), line.at(0)
    if "all" in line:
        return app.recover(all=True, plan="plan" in line, tell=print)
    if run is None:
        return app.recover()
    if "plan" in line:
        print("\n".join(app.recover(run, plan=True).lines()))
        return None
    return app.recover(run, tell=print)


def flow_resume(here: OpenNotebook, words: list[str]) -> Any:
    """Resume a suspended run; without one, this notebook."""
    from cellrail.run.jsontext import given_value

    line = split(words, values={"step", "data"})
    data = given_value(line.options.get("data"), "--data")
    run = _run_or_here(here, line.given)
    done = here.app().resume(run, step=line.options.get("step"), data=data, tell=print)
    return _unless_here(here, done)


def flow_cancel(here: OpenNotebook, words: list[str]) -> Any:
    """Cancel a run; without one, what this notebook waits for."""
    run = _run_or_here(here, split(words).given)
    return _unless_here(here, here.app().cancel(run, tell=print))


def _run_or_here(here: OpenNotebook, given: list[str]) -> str:
    """The run that is named; without a name this notebook, never another run of it."""
    if len(given) == 1 or (not given and here.live is not None):
        return given[0] if given else str(here.live.run_id)
    message = "a run is needed: %flow runs lists them"
    raise UserError(message)


def _unless_here(here: OpenNotebook, run: Any) -> Any:
    """A run that was answered; None where this notebook is what goes on."""
    if here.live is None or run.id != here.live.run_id:
        return run
    here.live.waiter.look()
    return None


def flow_tick(here: OpenNotebook, words: list[str]) -> Any:
    """Fire what is due, once."""
    split(words, most=0)
    return [one.run or one.refused for one in here.app().tick(tell=print)]
