"""Begins a live run: the first record, and the captures of this very kernel."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cellrail.errors import CellrailError
from cellrail.locate import flow_id
from cellrail.notebook.model import Flow
from cellrail.notebook.parse import load, parse
from cellrail.run import prepare
from cellrail.run.calls import CallRules, Calls
from cellrail.run.desks import desk_of, own_scope
from cellrail.run.frontmask import mask_front_end
from cellrail.run.live import LiveRun, StepBook
from cellrail.run.livewaits import LiveWaiter
from cellrail.run.masking import Masker
from cellrail.run.previously import Previously
from cellrail.run.recorder import Recorder
from cellrail.run.shellstate import ShellState
from cellrail.run.waits import WaitRules
from cellrail.settings import Settings
from cellrail_state.ambient import Base
from cellrail_state.capture import Limits
from cellrail_state.model import RunKind, RunStarted
from cellrail_state.prune import prune_live
from cellrail_state.store import Store

#: the flow of a live run whose front end does not tell its notebook
UNKNOWN = "unknown.ipynb"


def begin(
    shell: Any,
    base: Base,
    notebook: Path | None,
    *,
    store: Store,
    settings: Settings,
    clock: Callable[[], float],
) -> LiveRun:
    """Begin to record a kernel's cells.

    Args:
        shell: the IPython shell.
        base: the process as it was before.
        notebook: the notebook, where the front end tells.
        store: where the run is recorded.
        settings: limits.
        clock: seconds since the epoch.
    """
    from cellrail.version import __version__

    now = clock()
    flow = _flow(notebook)
    masker = Masker()
    flow_name = flow_id(notebook, store.path) if notebook is not None else UNKNOWN
    prune_live(store, flow_name, now=now)
    owner = prepare.this_process()
    started = RunStarted(
        run_id=prepare.new_run_id(now),
        flow=flow_name,
        kind=RunKind.LIVE,
        time=now,
        owner=owner,
        steps=prepare.step_infos(flow, masker, {}) if flow is not None else (),
        notebook_path=str(notebook or ""),
        cwd=str(Path.cwd()),
        hash_seed=prepare.own_hash_seed(),
        scope=own_scope(),
        cellrail=__version__,
    )
    recorder = Recorder(store, started, masker=masker, clock=clock)
    mask_front_end(shell, recorder.masker)
    recorder.kernel(
        pid=owner.pid,
        started=owner.started,
        python=".".join(map(str, sys.version_info[:3])),
        implementation=sys.implementation.name,
        packages={},
    )
    state = shell_state(shell, base, store=store, settings=settings)
    desk, book = desk_of(recorder, flow=flow_name, live=True), StepBook(flow)
    folder = notebook.parent if notebook is not None else Path.cwd()
    calls = CallRules(folder=folder, callers=(flow_name,), scope=started.scope)
    desk.add(Calls(desk, rules=calls))
    desk.add(Previously(desk))
    rules = WaitRules(base_url=settings.base_url, park_after=settings.park_after)
    desk.waiter = waiter = LiveWaiter(desk, rules=rules, places=book)
    desk.add(waiter)
    return LiveRun(
        shell, recorder=recorder, state=state, book=book, desk=desk, waiter=waiter, clock=clock
    )


def name_it(run: LiveRun, notebook: Path) -> None:
    """A live run that was begun without one has got its notebook.

    Args:
        run: the run.
        notebook: the notebook.
    """
    store = run.recorder.store
    run.belongs_to(flow_id(notebook, store.path), notebook, _flow(notebook))


def shell_state(shell: Any, base: Base, *, store: Store, settings: Settings) -> ShellState:
    """Captures of this kernel's namespace into a store."""
    limits = Limits(**prepare.checkpoint_limits(settings, store.path))
    return ShellState(shell, store.objects, base=base, limits=limits)


def _flow(notebook: Path | None) -> Flow | None:
    """The notebook's steps; none where its file is not (yet) a flow."""
    if notebook is None:
        return None
    try:
        return parse(load(notebook), notebook)
    except CellrailError:
        return None
