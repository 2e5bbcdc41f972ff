"""Captures one specimen of each type and reads its verdict: `docs/verdicts.md` is made of this.

    python tests/verdicts/read_verdicts.py --write

The specimens are the `*.txt` files beside this one: a title, then for each `# %% type | remark |
options` code that binds `x`, and after `# ---` what has to hold of the namespace restored
(`was` is the one before). Of a stored specimen the restored `x` must equal the old one, too, and
a second capture must find nothing changed. `options` is a Python dict:

* `capture`, `checkpoint`: keyword arguments;
* `verdict`: what to say where it depends on the version of Python;
* `compare: False`: the code below `# ---` compares.

Specimens of libraries that are not installed keep the row that they have.
"""

from __future__ import annotations

import ast
import json
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from cellrail_state.capture import Capture, Limits
from cellrail_state.equality import differs
from cellrail_state.namespace import user_names
from cellrail_state.restore import restore
from cellrail_state.testing import MemoryObjects

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "verdicts.md"
HEAD = """# Verdicts, type by type

Made by `python tests/verdicts/read_verdicts.py --write`, which captures one specimen of each
type; of the stored ones it restores the value, in the same process, and compares. What the
verdicts mean is in [checkpoints.md](checkpoints.md): a *stored* value comes back, for a *rebuilt*
one the cells that made it run again where a step needs it, a *lost* one does not come back. A
container that holds something that cannot be stored is rebuilt as a whole.
"""


class Specimen(NamedTuple):
    """One type, and the code that makes a value of it."""

    group: str
    label: str
    remark: str
    options: dict[str, Any]
    code: str
    check: str


def specimens() -> list[Specimen]:
    """All of them, in the order of the page."""
    found = []
    for path in sorted(HERE.glob("*.txt")):
        title, *parts = path.read_text("utf-8").split("\n# %% ")
        for part in parts:
            head, _, body = part.partition("\n")
            label, remark, options = (*(word.strip() for word in head.split("|")), "", "")[:3]
            code, _, check = body.partition("\n# ---\n")
            said = ast.literal_eval(options) if options else {}
            found.append(Specimen(title.strip("# \n"), label, remark, said, code, check))
    return found


class Finding(NamedTuple):
    """What became of a specimen."""

    verdict: str
    problem: str = ""


def examine(specimen: Specimen) -> Finding:
    """Capture a specimen; restore and compare it where it is stored."""
    space: dict[str, Any] = {"__name__": "__main__"}
    try:
        exec(compile(specimen.code, specimen.label, "exec", dont_inherit=True), space)
    except ImportError:
        return Finding("")
    objects = MemoryObjects()
    limits = Limits(**specimen.options.get("capture", {}))
    capture = Capture(objects, globals=space, limits=limits)
    capture.checkpoint(user_names(space), **specimen.options.get("checkpoint", {}))
    verdict = capture.current.variables["x"].verdict.value
    if verdict != "stored":
        return Finding(verdict)
    return Finding(verdict, _problem(specimen, space, capture, objects))


def _problem(
    specimen: Specimen, space: dict[str, Any], capture: Capture, objects: MemoryObjects
) -> str:
    again = capture.checkpoint(user_names(space))
    if "x" in again.written:
        return "a second capture finds it changed"
    fresh: dict[str, Any] = {"__name__": "__main__"}
    report = restore(capture.current, fresh, objects)
    if report.failed:
        return str(report.failed)
    compared = specimen.options.get("compare", True)
    found = differs(space["x"], fresh["x"]) if compared else ""
    if found:
        return f"its copy differs: {found}"
    try:
        fresh["was"] = space
        exec(compile(specimen.check, specimen.label, "exec", dont_inherit=True), fresh)
    except Exception as error:
        return f"of its copy does not hold: {specimen.check.strip()} ({error!r})"
    return ""


def rows_of(page: str) -> dict[str, str]:
    """The verdicts that a page holds, by type."""
    cells = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    return {cell[0]: cell[1] for cell in cells}


def page_of(findings: dict[str, Finding], before: dict[str, str]) -> str:
    """The page."""
    text, group = [HEAD], ""
    for one in specimens():
        if one.group != group:
            group = one.group
            text.append(f"\n## {group}\n\n| type | verdict | remark |\n|---|---|---|\n")
        verdict = one.options.get("verdict") or findings[one.label].verdict
        remark = f" {one.remark}" if one.remark else ""
        text.append(f"| {one.label} | {verdict or before.get(one.label, '?')} |{remark} |\n")
    return "".join(text)


def problems_of(one: Specimen, finding: Finding) -> str:
    """What is wrong with a finding; "" where nothing is."""
    said = one.options.get("verdict", finding.verdict)
    return finding.problem or ("" if finding.verdict in said else f"it is {finding.verdict}")


def main() -> None:
    """Print page and problems, or write the page."""
    warnings.simplefilter("ignore")
    told = specimens()
    findings = {one.label: examine(one) for one in told}
    page = page_of(findings, rows_of(PAGE.read_text("utf-8")) if PAGE.exists() else {})
    problems = {one.label: why for one in told if (why := problems_of(one, findings[one.label]))}
    if "--write" in sys.argv:
        PAGE.write_text(page, "utf-8")
        print(problems or f"{len(told)} types, no problems")
    else:
        print(json.dumps({"page": page, "problems": problems}))


if __name__ == "__main__":
    main()
