"""The notebook of a run as its journal has it, fit to be executed again.

What is recorded has no secrets in it. A run with secrets gets its sources back from the file where
that has the same steps still; else the parameters get their values from the journal, and a cell
that holds a secret elsewhere cannot be executed any more.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from cellrail.errors import CellrailError, RecoverRefused
from cellrail.notebook.fingerprint import local_modules
from cellrail.notebook.model import PARAMETERS, Flow
from cellrail.notebook.parse import INJECTED, load, parse, read_steps
from cellrail.run import prepare
from cellrail.run.masking import MASK
from cellrail_state.history import RunHistory
from cellrail_state.model import StepInfo


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """A notebook that a run goes on with."""

    #: an nbformat notebook, parameterised, secrets in clear
    notebook: Any
    #: its steps, as the run knows them
    flow: Flow
    #: what of the notebook's file, or of its local modules, is not as it was, in words
    changed: tuple[str, ...] = ()


def recorded_notebook(
    history: RunHistory,
    path: Path,
    *,
    parameters: Mapping[str, Any],
    secrets: Mapping[str, Any],
) -> Recorded:
    """A run's notebook.

    Args:
        history: the run.
        path: where its file lies, or lay.
        parameters: the parameters that were given, secrets in clear.
        secrets: the secret ones, those with their default too.

    Raises:
        RecoverRefused: it is not recorded, or a cell holds a secret that is not known any more.
    """
    from nbformat import from_dict

    plain = history.notebook()
    if plain is None:
        raise RecoverRefused(
            f"the notebook that run {history.run_id} executed is missing in the store",
            hint="`cellrail doctor` tells more",
        )
    today = _today(path)
    changed = _file_change(history, today, path)
    if secrets:
        known = {} if changed else dict(zip(_sources(plain), _sources(today), strict=True))
        plain = _unmasked(plain, known, parameters, secrets)
    notebook = from_dict(plain)
    flow = _as_known(parse(notebook, path), history.started.steps)
    if kept := history.started.options.get("modules"):
        flow = msgspec.structs.replace(flow, modules=Path(kept))
    told = [changed] if changed else _module_changes(flow, history)
    return Recorded(notebook=notebook, flow=flow, changed=tuple(told))


def _today(path: Path) -> dict[str, Any] | None:
    try:
        return load(path)
    except CellrailError:
        return None


def _file_change(history: RunHistory, today: Mapping[str, Any] | None, path: Path) -> str:
    """What has become of the notebook's file since the run began; "" where nothing has."""
    if today is None:
        return f"{path.name} cannot be read any more"
    steps, problems = read_steps(today)
    was = [(info.name, info.source_hash) for info in history.started.steps if info.source_hash]
    now = [(step.name, step.source_hash) for step in steps]
    return f"{path.name} has changed" if problems or was != now else ""


def _module_changes(flow: Flow, history: RunHistory) -> list[str]:
    """Local modules that are not as they were."""
    was = {info.number: info.modules for info in history.started.steps}
    changed = set()
    for step in flow.steps:
        now = local_modules(step.imports, flow.module_folder) if step.imports else {}
        recorded = was.get(step.number, {})
        changed |= {name for name, digest in recorded.items() if now.get(name) != digest}
    return [f"the module {name} has changed" for name in sorted(changed)]


def _sources(notebook: Mapping[str, Any] | None) -> list[str]:
    """The sources of the code cells, papermill's left out."""
    if notebook is None:
        return []
    return [_source(cell) for cell in notebook["cells"] if _is_own(cell)]


def _is_own(cell: Mapping[str, Any]) -> bool:
    return cell["cell_type"] == "code" and INJECTED not in cell["metadata"].get("tags", ())


def _source(cell: Mapping[str, Any]) -> str:
    return "".join(cell["source"])


def _unmasked(
    plain: Mapping[str, Any],
    known: Mapping[str, str],
    parameters: Mapping[str, Any],
    secrets: Mapping[str, Any],
) -> dict[str, Any]:
    notebook: dict[str, Any] = copy.deepcopy(dict(plain))
    for number, cell in enumerate(notebook["cells"], 1):
        tags = cell["metadata"].get("tags", ())
        source = _source(cell)
        if cell["cell_type"] != "code" or MASK not in source:
            continue
        if INJECTED in tags:
            values = {name: secrets.get(name, value) for name, value in parameters.items()}
            cell["source"] = "# Parameters\n" + prepare.assignments(values)
        elif source in known:
            cell["source"] = known[source]
        elif PARAMETERS in tags:
            cell["source"] = _default_secrets(source, secrets)
        else:
            raise RecoverRefused(
                f"cell {number} holds a secret, and its file has changed",
                hint="put the notebook back as it was, or make a new run: cellrail restart",
            )
    return notebook


def _default_secrets(source: str, secrets: Mapping[str, Any]) -> str:
    """A parameters cell with its secrets: masked defaults are given their values below it."""
    lines = [line for line in source.splitlines() if MASK not in line]
    return "\n".join(lines) + "\n" + prepare.assignments(secrets)


def _as_known(flow: Flow, infos: tuple[StepInfo, ...]) -> Flow:
    """The steps under the names, ids and digests that the run knows them by."""
    known = {info.number: info for info in infos}
    steps = [
        msgspec.structs.replace(
            step,
            cell_id=known[step.number].cell_id,
            source_hash=known[step.number].source_hash,
        )
        if step.number in known
        else step
        for step in flow.steps
    ]
    return msgspec.structs.replace(flow, steps=tuple(steps))
