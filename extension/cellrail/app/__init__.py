"""`App`: every use case once. The command line, the magics and the panels are thin over it."""

from __future__ import annotations

from cellrail.app.keeping import Keeping
from cellrail.app.looking import Looking
from cellrail.app.serving import Serving
from cellrail.app.statelist import StateList
from cellrail.app.stating import Stating
from cellrail.app.waitlist import WaitList

__all__ = ["App"]


class App(Serving, Looking, Keeping, Stating, StateList, WaitList):
    """The front door: runs, restarts, recovers and looks into what was run.

    Args:
        store: the store's folder; by default the one that belongs to `notebook`, or to the
            current folder.
        notebook: a notebook whose store is meant.
        keys: folder of the signing keys; by default in the user's Jupyter data folder.
        clock: seconds since the epoch.
    """
