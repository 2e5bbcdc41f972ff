"""From a request to a run that can start: parameters, secrets, the notebook, the first record."""

from __future__ import annotations

import base64
import os
import random
import re
import secrets as random_source
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from cellrail.notebook.model import Flow, Step
from cellrail.notebook.parameters import expressions, plain_values
from cellrail.run.masking import MASK, Masker
from cellrail.settings import Settings
from cellrail_state.model import Owner, StepInfo
from cellrail_state.objects import Objects

_HASH_SEEDS = 2**32
_ID_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"


def new_run_id(now: float) -> str:
    """An id that sorts by time (UTC, milliseconds) and is unique for all practical purposes."""
    moment = time.gmtime(now)
    tail = "".join(random_source.choice(_ID_ALPHABET) for _ in range(4))
    return time.strftime("%Y%m%d-%H%M%S", moment) + f"{int(now * 1000) % 1000:03d}-{tail}"


def new_hash_seed() -> int:
    """A seed for the kernel's string hashes, so that a restart can have the same."""
    return random.SystemRandom().randrange(_HASH_SEEDS)


def this_process() -> Owner:
    """This process as the owner of a run."""
    import socket

    import psutil

    process = psutil.Process()
    return Owner(pid=process.pid, started=process.create_time(), host=socket.gethostname())


def command_line(masker: Masker) -> str:
    """How this process was started, secrets masked."""
    import shlex

    words = [Path(sys.argv[0]).name, *sys.argv[1:]] if sys.argv and sys.argv[0] else ["python"]
    # before they are quoted: a quoted secret reads otherwise
    masked = map(masker.text, words)
    return " ".join(word if word == MASK else shlex.quote(word) for word in masked)


def step_infos(
    flow: Flow, masker: Masker, modules: Mapping[int, Mapping[str, str]]
) -> tuple[StepInfo, ...]:
    """The steps as the run's first record tells them.

    Args:
        flow: the steps.
        masker: the run's secrets.
        modules: digests of the local modules each step imports, by step number.
    """
    return tuple(
        StepInfo(
            number=step.number,
            name=step.name,
            cell_id=step.cell_id,
            source_hash=step.source_hash,
            source=masker.text(step.source),
            reads=tuple(sorted(step.reads)),
            writes=tuple(sorted(step.writes)),
            options=str(step.options),
            modules=dict(modules.get(step.number, {})),
        )
        for step in flow.steps
    )


def bind_cells(flow: Flow, executed: Flow) -> Flow:
    """The source's steps, placed in the notebook that papermill parameterised.

    papermill adds a cell and gives cells of old notebooks new random ids; names, ids and hashes
    are the source's, only the cells' places are the executed notebook's.
    """
    places = {step.number: step.cell_indices for step in executed.steps}
    steps: list[Step] = [
        msgspec.structs.replace(step, cell_indices=places[step.number]) for step in flow.steps
    ]
    known = {step.number for step in flow.steps}
    steps += [step for step in executed.steps if step.number not in known]
    return msgspec.structs.replace(flow, steps=tuple(sorted(steps, key=lambda s: s.number)))


def type_dates(notebook: Any, expressions: Mapping[str, str]) -> None:
    """In papermill's injected cell, write typed dates as dates.

    Args:
        notebook: the parameterised notebook; changed in place.
        expressions: Python expressions by parameter name.
    """
    for cell in notebook["cells"]:
        if "injected-parameters" in cell["metadata"].get("tags", ()):
            for name, expression in expressions.items():
                line = re.compile(rf"^{re.escape(name)} = .*$", re.MULTILINE)
                assigned = f"{name} = {expression}".replace("\\", r"\\")
                cell["source"] = line.sub(assigned, cell["source"])


def assignments(values: Mapping[str, Any]) -> str:
    """Code that assigns parameters, as papermill writes it; dates as dates."""
    from papermill.translators import PythonTranslator

    typed = expressions(values)
    written = plain_values({name: value for name, value in values.items() if name not in typed})
    code: str = PythonTranslator.codify(written) if written else ""
    return code + "".join(f"{name} = {made}\n" for name, made in typed.items())


def without_outputs(notebook: Any, masker: Masker) -> bytes:
    """The notebook as JSON without outputs, counts and secrets."""
    plain = {
        "nbformat": notebook["nbformat"],
        "nbformat_minor": notebook["nbformat_minor"],
        "metadata": masker.value(_plain(notebook["metadata"])),
        "cells": [_bare(cell, masker) for cell in notebook["cells"]],
    }
    return msgspec.json.encode(plain)


def _bare(cell: Mapping[str, Any], masker: Masker) -> dict[str, Any]:
    bare: dict[str, Any] = {**_plain(cell), "source": masker.text(str(cell["source"]))}
    if cell["cell_type"] == "code":
        bare["outputs"], bare["execution_count"] = [], None
        bare["metadata"] = {
            k: v for k, v in bare["metadata"].items() if k not in {"papermill", "execution"}
        }
    return bare


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value


def kernel_environment() -> dict[str, str]:
    """What a headless kernel gets in its environment, beside its hash seed."""
    return {"PYDEVD_DISABLE_FILE_VALIDATION": "1", "CELLRAIL_HEADLESS": "1"}


def first_sources(flow: Flow) -> list[str]:
    """Code of the steps that every run begins with, in their order."""
    sources = []
    for step in flow.steps:
        if step.skips or step.options.control or step.options.cache:
            break
        sources.append(step.body)
    return sources


def writable_parent(path: Path) -> bool:
    """Whether a file can be made at `path`."""
    return path.parent.is_dir() and os.access(path.parent, os.W_OK)


def mask_notebook(notebook: Any, masker: Masker, indices: Sequence[int]) -> dict[int, str]:
    """Mask the sources of these cells in place; the sources to execute, by cell index."""
    sources: dict[int, str] = {}
    for index in indices:
        cell = notebook["cells"][index]
        sources[index] = cell["source"]
        cell["source"] = masker.text(cell["source"])
    parameters = notebook["metadata"].get("papermill", {}).get("parameters")
    if parameters:
        notebook["metadata"]["papermill"]["parameters"] = masker.parameters(parameters)
    return sources


def own_hash_seed() -> int | None:
    """The seed of this process's string hashes, where it was set."""
    text = os.environ.get("PYTHONHASHSEED", "")
    return int(text) if text.isdigit() else None


def checkpoint_limits(settings: Settings, store_path: Path) -> dict[str, Any]:
    """What checkpoints may cost; the room in the store is what there is now."""
    room = None
    if settings.max_store is not None:
        room = settings.max_store - Objects(store_path / "objects").size()
    return {"max_value": settings.max_value, "max_seconds": settings.max_seconds, "room": room}
