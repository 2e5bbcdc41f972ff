"""The rooms of single buttons: a press starts a restart or a backfill; then they tell how it goes.

What a press does (`wish`) and which button it is (`button`) comes from the kernel with every
question, never from the browser. However often and wherever a button is pressed while its work is
under way: it is done once.
"""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cellrail.app.fills import INTERRUPTED, Fill
from cellrail.errors import BackfillRuns
from cellrail.panels.base import Args, Room
from cellrail.panels.errand import Errand, State, Wish
from cellrail.panels.rooms.pacing import PacedRoom
from cellrail.panels.rooms.runs import clipped
from cellrail_state.schedules import Filling

if TYPE_CHECKING:
    from cellrail.app import App

#: seconds in which the process that drives a backfill is taken to be about to begin
_STARTING_SECONDS = 20.0
#: of a run: its process works on it, or is about to
_UNDER_WAY = frozenset({"queued", "running"})
#: of a step: nothing more comes of it
_OVER = frozenset({"success", "kept", "failed", "skipped", "cancelled"})


class Told(msgspec.Struct, kw_only=True):
    """How the work of a button goes."""

    #: idle, starting, running or ended
    state: str = "idle"
    #: of the run or the backfill
    id: str = ""
    #: of the run or the backfill; "" where there is none yet
    status: str = ""
    words: str = ""
    error: dict[str, str] | None = None


class _Pressed(msgspec.Struct, kw_only=True):
    """A press that this room has seen."""

    errand: Errand
    #: what was looked at before it
    before: str


class RestartButtonRoom(Room):
    """Answers `press` and `told`."""

    def __init__(self, app: App) -> None:
        """Look into a store.

        Args:
            app: the store's.
        """
        super().__init__(app)
        self._pressed: dict[str, _Pressed] = {}

    def ask_press(self, args: Args) -> dict[str, Any]:
        """Restart the run in a process of its own, unless that is under way.

        Args:
            args: `button`, `wish` (`run` and `options`), `id` (what is looked at).
        """
        button, wish = str(args["button"]), args["wish"]
        known = self._pressed.get(button)
        if known is None or known.errand.state().state == "ended":
            run, _ = self.app.restartable(str(wish["run"]))
            errand = Errand(
                self.app,
                Wish(store=str(self.app.store_path), verb="restart", run=run.id,
                     options=dict(wish["options"])),
            )  # fmt: skip
            self._pressed[button] = _Pressed(errand=errand, before=str(args.get("id") or ""))
        return {}

    def ask_told(self, args: Args) -> Told:
        """How the last press goes, or the run that is looked at.

        Args:
            args: `button`, `id` (a run; may be empty).
        """
        state = self._errand(args)
        if state is None:
            run_id = str(args.get("id") or "")
            return self._of_run(run_id) if run_id else Told()
        told = self._of_run(state.run) if state.run else Told()
        told.state, told.error = state.state, state.error
        return told

    def stamp(self, what: str, args: Args) -> Hashable:
        """Whether the errand goes on, or the run."""
        del what
        state = self._errand(args)
        run_id = state.run if state is not None else str(args.get("id") or "")
        told = (state.state, state.run) if state is not None else None
        return told, self.pulse.of_run(run_id) if run_id else None

    def _errand(self, args: Args) -> State | None:
        """Of the last press, unless another run is looked at by now."""
        pressed = self._pressed.get(str(args["button"]))
        if pressed is None:
            return None
        state = pressed.errand.state()
        about = {pressed.before, state.run}
        return state if state.state != "ended" or str(args.get("id") or "") in about else None

    def _of_run(self, run_id: str) -> Told:
        run = self.app.show(run_id)
        statuses = [str(step.status) for step in run.steps]
        over = sum(status in _OVER for status in statuses)
        words = f"{over} of {len(statuses)} steps"
        if run.cause:
            words = f"{words}: {clipped(run.cause, 200)}"
        status = str(run.status)
        going = "running" if status in _UNDER_WAY else "ended"
        return Told(state=going, id=run.id, status=status, words=words)


class BackfillButtonRoom(PacedRoom):
    """Answers `press` and `told`."""

    def __init__(self, app: App) -> None:
        """Look into a store.

        Args:
            app: the store's.
        """
        super().__init__(app)
        self._fill: Fill | None = None

    def ask_press(self, args: Args) -> dict[str, Any]:
        """Start the backfill in a process of its own, or go on with it.

        Args:
            args: `wish` (`notebook`, `start`, `end` and `options`).
        """
        wish = args["wish"]
        try:
            fill = self.app.backfill_start(
                Path(wish["notebook"]), start=wish["start"], end=wish["end"], detach=True,
                **wish["options"],
            )  # fmt: skip
        except BackfillRuns as running:  # pressed twice
            return {"id": running.backfill}
        return {"id": fill.id}

    def ask_told(self, args: Args) -> Told:
        """How the backfill that is looked at goes.

        Args:
            args: `id` (a backfill; may be empty).
        """
        fill_id = str(args.get("id") or "")
        if not fill_id:
            return Told()
        fill = self._known(fill_id)
        progress, status = fill.progress(), fill.status
        if status == INTERRUPTED and self.app.clock() - fill.state.time < _STARTING_SECONDS:
            status = "starting"
        pieces = [f"{number} {word}" for word, number in progress.ended.items()]
        pieces += [f"{progress.running} running"] if progress.running else []
        over = sum(progress.ended.values())
        words = f"{over} of {progress.total} ticks" + (f": {', '.join(pieces)}" if pieces else "")
        known = {"starting": "starting", str(Filling.RUNNING): "running"}
        state = known.get(status, "ended")
        return Told(state=state, id=fill.id, status=status, words=words)

    def now(self, what: str, args: Args) -> Hashable:
        """Changes when a run does, or the backfill is told to do another thing, or nobody does."""
        del what
        fill_id = str(args.get("id") or "")
        if not fill_id:
            return None
        fill = self._known(fill_id)
        told, status = fill.state, fill.status
        early = self.app.clock() - told.time < _STARTING_SECONDS
        return fill.id, self.pulse.beat(), told, status, early

    def _known(self, fill_id: str) -> Fill:
        """The backfill, with the ticks that it is known to have."""
        if self._fill is None or self._fill.id != fill_id:
            self._fill = self.app.backfill_show(fill_id)
        return self._fill
