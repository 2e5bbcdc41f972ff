"""Use cases that keep the store: examine, prune, trust, rename, keys."""

from __future__ import annotations

from pathlib import Path

from cellrail.app.base import AppBase
from cellrail.errors import NotANotebook, RunNotFound, UserError
from cellrail.locate import flow_id
from cellrail.run.desks import own_user
from cellrail_state.doctor import Report, examine
from cellrail_state.prune import PruneReport, prune


class Keeping(AppBase):
    """Keeps the store in order."""

    def doctor(self, *, fix: bool = False) -> Report:
        """Check journals, rows and objects; with `fix`, mend what can be mended."""
        return examine(self.store, fix=fix)

    def prune(
        self, *, keep_last: int | None = None, older_than: float | None = None, plan: bool = False
    ) -> PruneReport:
        """Delete old runs and free what no kept run points to.

        Args:
            keep_last: keep this many newest runs of each flow.
            older_than: delete only runs older than this, in seconds.
            plan: tell what would be freed; delete nothing.
        """
        return prune(
            self.store, keep_last=keep_last, older_than=older_than, plan=plan, now=self.clock()
        )

    def store_bytes(self) -> int:
        """Bytes that the stored values take, roughly."""
        return self.store.objects.size(roughly=True)

    def trust(self) -> int:
        """Adopt this store as it is now; the number of journals that are trusted from here on."""
        return self.store.trust()

    def mv(self, old: str | Path, new: str | Path) -> int:
        """Follow a notebook's rename with its history, states and triggers; how many runs follow.

        Raises:
            RunNotFound: no run is known under the old name.
            NotANotebook: there is no notebook under the new name.
            UserError: both are the same.
        """
        if not Path(new).is_file():
            raise NotANotebook(f"{new} does not exist", hint="rename the file first; mv follows it")
        before = flow_id(Path(old).resolve(), self.store_path)
        after = flow_id(Path(new).resolve(), self.store_path)
        if before == after:
            raise UserError(f"{old} and {new} are the same notebook")
        moved = self.store.rename_flow(before, after, now=self.clock())
        if not moved + self.store.rename_schedules(before, after):
            raise RunNotFound(f"no run of {before!r} is known", hint="cellrail runs lists them")
        self.store.ledger.move(before, after, by=own_user(), now=self.clock())
        return moved

    def key_export(self) -> str:
        """This user's signing key as text. Whoever has it can sign in this user's name."""
        return self.keyring.export()

    def key_import(self, text: str) -> None:
        """Accept stores that were signed with an exported key."""
        self.keyring.import_(text)
