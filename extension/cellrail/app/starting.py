"""What use cases that start a run need: its launcher, its limits, the origin's parameters."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cellrail.app.detaching import begin, request_of
from cellrail.app.waking import Waking
from cellrail.errors import RunNotFound, TickIsTaken, UserError
from cellrail.launch import Launcher
from cellrail.locate import flow_id
from cellrail.notebook.parameters import coerce, from_json, to_json
from cellrail.notebook.plan import Plan
from cellrail.restarting import RestartPlan
from cellrail.run import prepare
from cellrail.run.limits import RunLimits
from cellrail.schedule.inputs import inputs_digest
from cellrail.views import Run
from cellrail_state.history import RunHistory
from cellrail_state.model import KeptReason, Tick
from cellrail_state.standing import Claimer, Stand, Standing, claim, stand

if TYPE_CHECKING:
    from cellrail.notebook.model import Flow


class Ticked(msgspec.Struct, frozen=True, kw_only=True):
    """A run whose id was chosen before it begins: claimed for a tick, announced, or shared."""

    run_id: str
    #: None where it is of no tick, or of its origin's
    tick: Tick | None = None
    #: the file that holds the notebook as it is to be run; None for the notebook's own
    pinned: Path | None = None
    #: the folder that holds local modules as they are to be run; None for the notebook's own
    modules: Path | None = None
    #: the seed of string hashes; None for any
    hash_seed: int | None = None
    #: whose states its steps see, where that does not follow
    scope: str = ""
    #: what its cells do is watched, for others to share
    watch: bool = False
    #: why it keeps what it keeps
    kept_as: KeptReason = KeptReason.ORIGIN


class Starting(Waking):
    """Starts runs."""

    def _launch(
        self,
        path: Path,
        flow: Flow,
        plan: Plan,
        values: Mapping[str, Any],
        *,
        secret: Mapping[str, Any],
        labels: dict[str, str],
        options: RunLimits,
        restart: RestartPlan | None = None,
        changed: Sequence[str] = (),
        ticked: Ticked | None = None,
        kernels: str = "cold",
        **rest: Any,
    ) -> Run:
        if ticked is not None:
            rest |= {
                "tick": ticked.tick, "run_id": ticked.run_id, "pinned": ticked.pinned,
                "hash_seed": ticked.hash_seed, "scope": ticked.scope, "watch": ticked.watch,
                "kept_as": ticked.kept_as,
            }  # fmt: skip
        launcher = Launcher(
            path=path, flow=flow, flow_id=flow_id(path, self.store_path), plan=plan,
            values=dict(values), secrets=dict(secret), labels=labels, options=options,
            settings=self.settings, store_path=self.store_path, open_store=self._open_or_create,
            restart=restart, changed=tuple(changed), clock=self.clock,
            supply=self._supply(kernels), ingest=self._ingest(kernels), **rest,
        )  # fmt: skip
        run_id = launcher.run()
        return self._followed(run_id, progress=launcher.progress)

    def _detached(
        self,
        action: str,
        subject: str | Path,
        output: str | Path | None,
        options: Mapping[str, Any],
    ) -> Run:
        """Begin a run in a process of its own; the run as it is then."""
        run_id = prepare.new_run_id(self.clock())
        request = request_of(self, action, subject, output, options, run_id=run_id)
        return self._view(self.history(begin(self, request)))

    @contextlib.contextmanager
    def _ticked(
        self,
        ticked: Ticked | None,
        history: RunHistory,
        values: Mapping[str, Any],
        secret: Collection[str],
    ) -> Iterator[Ticked | None]:
        """Claim the tick of a run that somebody restarts or reruns by hand.

        Args:
            ticked: what was claimed, or only announced, already; None by hand.
            history: the origin.
            values: the new run's parameters; with others than the origin's it is another tick.
            secret: names of those that are secret.

        Raises:
            TickIsTaken: a run of it is under way.
        """
        tick = self._tick_again(history, values, secret)
        if tick is None or (ticked is not None and ticked.tick is not None):
            yield ticked
            return
        chosen = ticked.run_id if ticked is not None else ""
        store, flow = self.store, self.store.current_flow(history.started)
        with store.claims.owner() as lock:
            seen = stand(store, flow, tick.key)
            got = claim(
                store, flow, [seen], Claimer(owner=prepare.this_process(), lock=lock, by=tick.by),
                new_id=lambda: chosen or prepare.new_run_id(self.clock()), now=self.clock(),
            )  # fmt: skip
            if not got:
                raise _taken(tick, seen)
            tick = msgspec.structs.replace(tick, number=got[0].number)
            yield Ticked(tick=tick, run_id=got[0].run_id)

    def _check_tick(
        self,
        ticked: Ticked | None,
        history: RunHistory,
        values: Mapping[str, Any],
        secret: Collection[str],
    ) -> None:
        """Refuse what `_ticked` would refuse; nothing is claimed."""
        tick = self._tick_again(history, values, secret)
        if tick is None or (ticked is not None and ticked.tick is not None):
            return
        seen = stand(self.store, self.store.current_flow(history.started), tick.key)
        if seen.under_way and seen.standing is not Standing.ABANDONED:
            raise _taken(tick, seen)

    @staticmethod
    def _tick_again(
        history: RunHistory, values: Mapping[str, Any], secret: Collection[str]
    ) -> Tick | None:
        """The tick of a run that is restarted with these parameters."""
        tick = history.started.tick
        if tick is None:
            return None
        return msgspec.structs.replace(tick, inputs=inputs_digest(to_json(dict(values)), secret))

    def _flow_of(self, notebook: str | Path, ticked: Ticked | None) -> tuple[Path, Flow]:
        """A notebook's path, and its steps as they are to be run."""
        if ticked is None:
            return self._flow(notebook)
        return self._flow(notebook, pinned=ticked.pinned, modules=ticked.modules)

    @staticmethod
    def _check_timeout(timeout: float | None) -> None:
        """Refuse a limit of the whole run that is none.

        Raises:
            UserError: it is not more than 0 seconds.
        """
        if timeout is not None and not timeout > 0:
            raise UserError(
                f"the run's timeout is more than 0 seconds, not {timeout:g}",
                hint="leave it out for no limit",
            )

    def _options(self, timeout: float | None, strict: bool | None) -> RunLimits:
        return RunLimits(
            timeout=timeout,
            cell_timeout=self.settings.cell_timeout,
            strict=self.settings.strict if strict is None else strict,
            lazy_above=self.settings.lazy_above,
        )

    def _notebook_of(self, history: RunHistory) -> Path:
        path = self.store_path.parent / self.store.current_flow(history.started)
        if path.is_file():
            return path
        recorded = Path(history.started.notebook_path)
        if recorded.is_file():
            return recorded
        raise RunNotFound(
            f"the notebook {history.started.flow!r} of run {history.run_id} is gone",
            hint="after a rename: cellrail mv OLD NEW; "
            f"or get it back: cellrail export {history.run_id} {path.name}",
        )

    def _merged(
        self, history: RunHistory, flow: Flow, parameters: Mapping[str, Any] | None
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        """The restarted run's parameters, and the names that differ from the origin's."""
        started = history.started
        old = {name: from_json(value) for name, value in started.parameters.items()}
        for name, token in started.secrets.items():
            old[name] = from_json(msgspec.json.decode(self.keyring.decrypt(token)))
        new = coerce(flow.parameters, parameters or {})
        defaults = {p.name: p.default for p in flow.parameters}
        changed = tuple(
            sorted(n for n, v in new.items() if to_json(v) != to_json(old.get(n, defaults.get(n))))
        )
        return {**old, **new}, changed


def _taken(tick: Tick, seen: Stand) -> TickIsTaken:
    return TickIsTaken(
        f"the tick {tick.moment.isoformat()} has a run that has not ended: {seen.run_id}",
        hint=f"cellrail show {seen.run_id}; an interrupted one is recovered, a suspended one "
        "resumed or cancelled",
    )


def options_told(**options: Any) -> dict[str, Any]:
    """The options that were given, as the run's first record tells them."""
    return {name: value for name, value in options.items() if value}
