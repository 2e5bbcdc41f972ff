"""`%flow` commands that look at runs and change nothing."""

from __future__ import annotations

from typing import Any

from cellrail.errors import UserError
from cellrail.magics.opened import OpenNotebook
from cellrail.magics.words import split
from cellrail.notebook.model import Flow


def flow_runs(here: OpenNotebook, words: list[str]) -> Any:
    """The newest runs, of a notebook or of the store."""
    from cellrail.given import parse_labels

    line = split(words, most=1, values={"limit", "status", "since"}, lists={"label"})
    app, since = here.app(), line.seconds("since")
    return app.runs(
        line.at(0),
        status=line.options.get("status"),
        labels=parse_labels(line.lists.get("label", ())),
        since=None if since is None else app.clock() - since,
        limit=line.number("limit", 20),
    )


def flow_show(here: OpenNotebook, words: list[str]) -> Any:
    """A run, a step of it, or the variables behind that."""
    line = split(words, most=2, flags={"vars"})
    run = here.app().show(line.at(0) or here.default_run())
    address = line.at(1)
    step = run[address] if address is not None else run.steps[-1]
    if "vars" in line:
        return step.variables
    return step if address is not None else run


def flow_steps(here: OpenNotebook, words: list[str]) -> Flow:
    """The steps of a notebook."""
    notebook = split(words, most=1).at(0) or here.notebook()
    if notebook is None:
        message = "this front end does not tell which notebook it has open"
        raise UserError(message, hint="%flow steps NOTEBOOK, or %flow config notebook=PATH")
    flow: Flow = here.app().steps(notebook)
    return flow


def flow_journal(here: OpenNotebook, words: list[str]) -> list[dict[str, Any]]:
    """What happened in a run, in order."""
    return list(here.app().journal(split(words, most=1).at(0) or here.default_run()))


def flow_diff(here: OpenNotebook, words: list[str]) -> Any:
    """Compare two runs."""
    given = split(words).given
    if len(given) != 2:
        message = "two runs are needed"
        raise UserError(message)
    return here.app().diff(*given)


def flow_export(here: OpenNotebook, words: list[str]) -> Any:
    """Rebuild a run's executed notebook."""
    given = split(words).given
    if len(given) != 2:
        message = "a run and a file are needed"
        raise UserError(message)
    return here.app().export(*given)


def flow_sql(here: OpenNotebook, words: list[str]) -> Any:
    """Query the catalog, or a run's checkpointed DataFrames; rows as dicts."""
    line = split(words, values={"run", "step"})
    if len(line.given) != 1:
        raise UserError("one query is needed", hint="in quotes: %flow sql 'SELECT * FROM runs'")
    return here.app().sql(line.given[0], run=line.options.get("run"), step=line.options.get("step"))


def flow_load(here: OpenNotebook, words: list[str]) -> None:
    """Bring past values into this kernel; nothing is overwritten."""
    from cellrail.run.here import load_into

    line = split(words, values={"as"})
    if len(line.given) < 2:
        message = "a run and a step are needed, then names"
        raise UserError(message)
    run, step, *names = line.given
    rename = line.options.get("as")
    if rename is not None and len(names) != 1:
        message = "--as goes with one name"
        raise UserError(message)
    view = here.app().show(run, verify=True)[step]
    wanted = names or [n for n in view.variables if n.isidentifier()]
    values = view.load(wanted)
    print("loaded " + ", ".join(load_into(here.shell, values, rename=rename)))


def flow_panel(here: OpenNotebook, words: list[str]) -> Any:
    """A panel on the runs, or opened at one of them."""
    from cellrail.panels import panel

    return panel(here.app(), run=split(words, most=1).at(0) or "")
