"""The peers, each as one command that executes a notebook."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

PYTHON = sys.executable
_NBCLIENT = (
    "import sys, nbformat; from nbclient import NotebookClient; "
    "nb = nbformat.read(sys.argv[1], 4); NotebookClient(nb).execute(); "
    "nbformat.write(nb, sys.argv[2])"
)

#: name -> command; IN and OUT stand for the notebooks
PEERS: dict[str, list[str]] = {
    "cellrail": [PYTHON, "-m", "cellrail", "run", "IN", "OUT", "-q"],
    "papermill": [PYTHON, "-m", "papermill", "IN", "OUT", "--no-progress-bar"],
    "nbclient": [PYTHON, "-c", _NBCLIENT, "IN", "OUT"],
    "nbconvert": [
        PYTHON, "-m", "nbconvert", "--to", "notebook", "--execute", "--log-level=ERROR",
        "IN", "--output", "OUT",
    ],
}  # fmt: skip


def run_peer(name: str, notebook: Path, folder: Path) -> float:
    """Seconds that a peer takes for a notebook, as a whole process."""
    files = {"IN": notebook.name, "OUT": f"out-{name}.ipynb"}
    command = [files.get(word, word) for word in PEERS[name]]
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - began


def restart_latency(folder: Path, size: int) -> float:
    """Seconds from the command to the running of the last cell, for a restart from there."""
    began = time.time()
    done = subprocess.run(
        [PYTHON, "-m", "cellrail", "restart", f"cells{size}.ipynb", "--from", f"#{size}", "--json"],
        cwd=folder, check=True, capture_output=True, text=True,
    )  # fmt: skip
    statuses = [step["status"] for step in json.loads(done.stdout)["steps"]]
    if statuses != ["kept"] * (size - 1) + ["success"]:
        message = "the restart did not keep what it should have kept"
        raise RuntimeError(message)
    return float((folder / "ran").read_text()) - began
