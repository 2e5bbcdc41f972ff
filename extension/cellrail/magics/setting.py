"""`%flow help`, `record` and `config`: about this notebook itself."""

from __future__ import annotations

from cellrail.errors import UserError
from cellrail.magics.opened import OpenNotebook
from cellrail.magics.words import split

_HELP = """\
%flow runs [NB] [--limit N]           the newest runs
%flow show [RUN [STEP]] [--vars]      a run, or a step of it
%flow steps [NB]                      the steps of a notebook
%flow load RUN STEP [NAME…] [--as N]  bring past values in; nothing is overwritten
%flow restart [RUN] [--from STEP] [--plan] [--force|--widen] [--run]
                                      put the namespace back to before a step
%flow restart [RUN] [OUT] --detach …  restart as a run of its own, in the background;
                                      options as on the command line
%flow undo                            take the last restart here back
%flow run [NB] [OUT] [-p NAME VALUE] [--plan] [--detach]
                                      run a notebook headless
%flow rerun RUN [OUT] [--changed WHAT,…] [--plan] [--detach]
                                      execute what changed since a run, as a new headless run
%flow recover [RUN | --all] [--plan]  go on with a run after a crash; without RUN: list them
%flow resume [RUN] [--step STEP] [--data JSON|@FILE]
                                      resume a suspended run, without RUN this notebook;
                                      cancel [RUN] cancels it
%flow tick                            fire what is due: waits whose time is up, triggers
%flow trigger add NB --cron EXPR …|list|show|next|enable|disable|remove
%flow backfill start NB --start DAY … [--plan]|list|show|pause|resume|cancel
                                      schedules, and runs over a range (in the background)
%flow state|resource|variable list|get|set|delete …
                                      what outlives runs, as on the command line
%flow journal|diff|export|sql|prune|doctor|trust|mv|key …
                                      as on the command line
%flow panel [RUN]                     look at runs, and restart them, in a panel
%flow record [on|off]                 record this notebook, or not
%flow config [NAME=VALUE]             show or set the settings of this kernel"""


def flow_help(here: OpenNotebook, words: list[str]) -> None:
    """List the commands."""
    del here, words
    print(_HELP)


def flow_record(here: OpenNotebook, words: list[str]) -> None:
    """Record this notebook, or not; without a word: whether it is."""
    given = split(words).given
    if given == ["on"]:
        here.wanted = True
    elif given == ["off"]:
        here.wanted = False
        here.end()
    elif given:
        message = f"record on or off, not {' '.join(given)!r}"
        raise UserError(message)
    on = here.live is not None or here.wanted
    print(f"recording is {'on' if on else 'off'}")


def flow_config(here: OpenNotebook, words: list[str]) -> None:
    """Show the settings, or set which notebook and store this kernel belongs to."""
    for word in words:
        name, equals, value = word.partition("=")
        if name not in {"notebook", "store"}:
            raise UserError(
                f"{name!r} cannot be set here",
                hint="notebook=PATH and store=PATH can; the others stand in [tool.cellrail]",
            )
        if equals:
            here.options[name] = value
    here.learn_name()
    app = here.app()
    print(f"notebook = {here.notebook() or 'unknown'}")
    print(f"store = {app.store_path}")
    for name in app.settings.__struct_fields__:
        if name != "store":
            print(f"{name} = {getattr(app.settings, name)!r}")
