"""From a notebook file to a flow.

Every code cell is a step. Three spellings give it a name and options: a first line `%%step NAME …`,
a tag `step:NAME` (options in `cell.metadata.cellrail.options`), or a first line `# step: NAME …`.
The cell tagged `parameters` and papermill's injected cell are one step, `parameters`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec

from cellrail.errors import BadNotebook, NotANotebook
from cellrail.notebook import apart, collecting
from cellrail.notebook.blocks import mistakes
from cellrail.notebook.fingerprint import source_hash
from cellrail.notebook.model import PARAMETERS, Flow, Step
from cellrail.notebook.options import OptionError, StepOptions, parse_line, parse_options
from cellrail.notebook.parameters import infer
from cellrail.notebook.reads import names_of, option_names
from cellrail.step_line import blank_step_line, step_line

INJECTED = "injected-parameters"
_TAG = "step:"
#: prose that happens to begin with `step:` is a comment like any other
_COMMENT = re.compile(r"#\s*(?:%%\s*)?step:\s*([A-Za-z_][\w.-]*(?:\s+--.*)?)\s*")
_CELL_MAGIC = re.compile(r"\s*%%(\w+)")


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Something wrong with a cell."""

    cell: str
    message: str

    def __str__(self) -> str:
        return f"{self.cell}: {self.message}"


def load(path: Path) -> dict[str, Any]:
    """A notebook file's content.

    Raises:
        NotANotebook: it cannot be used; the message says why.
    """
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        names = [p.name for p in path.parent.glob("*.ipynb")] if path.parent.is_dir() else []
        near = get_close_matches(path.name, names, n=1)
        raise NotANotebook(
            f"{path} does not exist", hint=f"did you mean {path.parent / near[0]}?" if near else ""
        ) from error
    except IsADirectoryError as error:
        raise NotANotebook(f"{path} is a folder", hint="name a notebook in it") from error
    except UnicodeDecodeError as error:
        raise NotANotebook(f"{path} is no notebook: it is not UTF-8 text") from error
    except OSError as error:
        raise NotANotebook(f"{path} cannot be read: {error.strerror}") from error
    try:
        notebook = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NotANotebook(f"{path} is no notebook: it is not JSON ({error})") from error
    return checked(notebook, path)


def checked(notebook: object, path: Path) -> dict[str, Any]:
    """The notebook, if it has the shape of one.

    Raises:
        NotANotebook: it has not.
    """
    if not isinstance(notebook, dict) or not isinstance(notebook.get("nbformat"), int):
        raise NotANotebook(f"{path} is no notebook: it has no nbformat")
    version = notebook["nbformat"]
    if version < 4:
        raise NotANotebook(
            f"{path} is a notebook of version {version}; cellrail reads version 4",
            hint=f"jupyter nbconvert --to notebook --nbformat 4 --output {path.name} {path}",
        )
    if version > 4:
        raise NotANotebook(f"{path} is a notebook of version {version}; cellrail reads version 4")
    cells = notebook.get("cells")
    if not isinstance(cells, list) or not all(
        isinstance(cell, dict) and isinstance(cell.get("cell_type"), str) for cell in cells
    ):
        raise NotANotebook(f"{path} is no notebook: its cells are missing or broken")
    return notebook


def parse(notebook: Mapping[str, Any], path: Path) -> Flow:
    """The notebook as a flow.

    Raises:
        BadNotebook: a cell cannot be a step as it is; every problem is named.
    """
    steps, problems = read_steps(notebook)
    problems += _duplicates(steps)
    wrong = mistakes(steps)
    if not problems and not wrong:
        wrong = [*apart.mistakes(steps), *collecting.mistakes(steps)]
    problems += [Problem(cell=f"cell #{step.number}", message=told) for step, told in wrong]
    if problems:
        rest = "".join(f"\n{problem}" for problem in problems[1:])
        raise BadNotebook(
            f"{problems[0]}{rest}", hint="cellrail steps NOTEBOOK checks without running"
        )
    metadata = notebook.get("metadata") or {}
    kernel = metadata.get("kernelspec") or {}
    parameters = next((step for step in steps if step.name == PARAMETERS), None)
    return Flow(
        path=path,
        steps=tuple(steps),
        kernel_name=str(kernel.get("name") or ""),
        language=str((metadata.get("language_info") or {}).get("name") or "python"),
        parameters=infer(_parameters_source(notebook)) if parameters is not None else (),
    )


def read_steps(notebook: Mapping[str, Any]) -> tuple[list[Step], list[Problem]]:
    """The steps, and what is wrong with cells."""
    steps: list[Step] = []
    problems: list[Problem] = []
    injected: list[int] = []
    for index, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] != "code":
            continue
        tags = _tags(cell)
        if INJECTED in tags:
            injected.append(index)
            continue
        number = len(steps) + 1
        try:
            steps.append(_step(cell, index, number, tags))
        except OptionError as error:
            problems.append(Problem(cell=_where(cell, number), message=str(error)))
            steps.append(Step(number=number, cell_indices=(index,)))
    return _join_injected(steps, injected, notebook), problems


def _join_injected(
    steps: list[Step], injected: Sequence[int], notebook: Mapping[str, Any]
) -> list[Step]:
    """Papermill's cell belongs to the parameters step, or is one where there is none."""
    if not injected:
        return steps
    for place, step in enumerate(steps):
        if step.name == PARAMETERS:
            cells = tuple(sorted({*step.cell_indices, *injected}))
            steps[place] = msgspec.structs.replace(step, cell_indices=cells)
            return steps
    first = injected[0]
    source = _source(notebook["cells"][first])
    # number 0: it comes before the first code cell, and counting is the source notebook's
    extra = Step(number=0, name=PARAMETERS, source=source, body=source, cell_indices=(first,),
                 writes=names_of(source).writes)  # fmt: skip
    return [extra, *steps]


def _step(cell: Mapping[str, Any], index: int, number: int, tags: Sequence[str]) -> Step:
    source = _source(cell)
    name, options = _name_and_options(cell, source, tags)
    if PARAMETERS in tags:
        if name and name != PARAMETERS:
            message = f"the parameters cell is the step 'parameters', it cannot be {name!r}"
            raise OptionError(message)
        name = PARAMETERS
    elif name == PARAMETERS:
        message = "the name 'parameters' is the parameters cell's; choose another, or tag the cell"
        raise OptionError(message)
    if "always" in tags:
        options = msgspec.structs.replace(options, always=True)
    body = "".join(blank_step_line(source.splitlines(keepends=True)))
    names = names_of(body)
    line = option_names(options)
    return Step(
        number=number,
        name=name,
        cell_id=str(cell.get("id") or ""),
        source=source,
        body=body,
        source_hash=source_hash(body),
        options=options,
        tags=tuple(tags),
        reads=names.reads | line.reads,
        writes=names.writes | line.writes,
        mutates=names.mutates,
        definitions=names.definitions,
        opaque=names.opaque or line.opaque,
        imports=names.imports,
        mentions=names.mentions | line.mentions,
        looks_up=names.looks_up or line.looks_up,
        rebinds=names.rebinds - line.reads - line.mentions,
        cell_indices=(index,),
    )


def _name_and_options(
    cell: Mapping[str, Any], source: str, tags: Sequence[str]
) -> tuple[str, StepOptions]:
    spelled: dict[str, StepOptions] = {}
    line = step_line(source)
    if line is not None:
        name, options = parse_line(line)
        spelled[name] = options
    elif (misplaced := _misplaced(source)) is not None:
        raise OptionError(misplaced)
    first = next((text.strip() for text in source.splitlines() if text.strip()), "")
    comment = _COMMENT.fullmatch(first)
    if comment:
        name, options = parse_line(comment.group(1))
        spelled[name] = options
    for tag in tags:
        if tag.startswith(_TAG):
            name, options = parse_line(tag[len(_TAG) :])
            text = ((cell.get("metadata") or {}).get("cellrail") or {}).get("options", "")
            spelled[name] = parse_options(str(text)) if text else spelled.get(name, options)
    if len(spelled) > 1:
        message = f"the cell has several names: {', '.join(spelled)}"
        raise OptionError(message)
    return next(iter(spelled.items()), ("", StepOptions()))


def _misplaced(source: str) -> str | None:
    """A `%%step` line below another cell magic would never be seen."""
    lines = [line for line in source.splitlines() if line.strip()]
    first = _CELL_MAGIC.match(lines[0]) if lines else None
    if first is None or first.group(1) == "step":
        return None
    if any(line.startswith("%%step") for line in lines[1:]):
        return f"%%step must stand above %%{first.group(1)}, as the cell's first line"
    return None


def _duplicates(steps: Sequence[Step]) -> list[Problem]:
    seen: dict[str, Step] = {}
    problems = []
    for step in steps:
        if not step.name:
            continue
        other = seen.setdefault(step.name, step)
        if other is not step:
            problems.append(
                Problem(
                    cell=f"cell #{step.number}",
                    message=f"the step name {step.name!r} is already that of cell #{other.number}",
                )
            )
    return problems


def _where(cell: Mapping[str, Any], number: int) -> str:
    cell_id = cell.get("id")
    return f"cell #{number}" + (f" (id {cell_id})" if cell_id else "")


def _tags(cell: Mapping[str, Any]) -> tuple[str, ...]:
    tags = (cell.get("metadata") or {}).get("tags") or ()
    return tuple(tag for tag in tags if isinstance(tag, str))


def _source(cell: Mapping[str, Any]) -> str:
    source = cell.get("source", "")
    return source if isinstance(source, str) else "".join(map(str, source))


def _parameters_source(notebook: Mapping[str, Any]) -> str:
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code" and PARAMETERS in _tags(cell):
            return _source(cell)
    return ""
