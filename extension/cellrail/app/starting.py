"""What use cases that start a run need: its launcher, its limits, the origin's parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cellrail.app.waking import Waking
from cellrail.errors import RunNotFound
from cellrail.launch import Launcher
from cellrail.locate import flow_id
from cellrail.notebook.parameters import coerce, from_json, to_json
from cellrail.notebook.plan import Plan
from cellrail.restarting import RestartPlan
from cellrail.run.performer import RunLimits
from cellrail.views import Run
from cellrail_state.history import RunHistory

if TYPE_CHECKING:
    from cellrail.notebook.model import Flow


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
        kernels: str = "cold",
        **rest: Any,
    ) -> Run:
        launcher = Launcher(
            path=path, flow=flow, flow_id=flow_id(path, self.store_path), plan=plan,
            values=dict(values), secrets=dict(secret), labels=labels, options=options,
            settings=self.settings, store_path=self.store_path, open_store=self._open_or_create,
            restart=restart, changed=tuple(changed), clock=self.clock,
            supply=self._supply(kernels), ingest=self._ingest(kernels), **rest,
        )  # fmt: skip
        run_id = launcher.run()
        return self._followed(run_id, progress=launcher.progress)

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


def options_told(**options: Any) -> dict[str, Any]:
    """The options that were given, as the run's first record tells them."""
    return {name: value for name, value in options.items() if value}
