"""papermill's way in: the engine `cellrail` at its `papermill.engine` entry point.

papermill loads its engines while it is itself half imported, so this class is duck-typed and
imports nothing of papermill at the top. papermill loads and parameterises the notebook; the engine
gets it whole and hands it to a *conductor*:

* `cellrail run` passes its own, which records, executes and reports by itself;
* under `papermill --engine cellrail` there is none, and `App` makes one from the environment.
"""

from __future__ import annotations

from typing import Any, Protocol


class Conductor(Protocol):
    """Executes a notebook that papermill has parameterised."""

    def conduct(self, notebook: Any, *, kernel_name: str) -> Any:
        """Execute it; returns the notebook with outputs."""


class CellrailEngine:
    """The engine, as papermill calls it."""

    @classmethod
    def execute_notebook(
        cls,
        nb: Any,
        kernel_name: str,
        *,
        conductor: Conductor | None = None,
        **options: Any,
    ) -> Any:
        """Execute a parameterised notebook.

        Args:
            nb: the nbformat notebook; it is changed in place.
            kernel_name: the kernel specification's name.
            conductor: who executes it; None under papermill's own command.
            options: papermill's own arguments (`input_path`, `execution_timeout`, ...).

        Returns:
            The notebook with its outputs.
        """
        if conductor is None:
            from cellrail.papermill import PapermillConductor

            conductor = PapermillConductor(options)
        return conductor.conduct(nb, kernel_name=kernel_name)

    @classmethod
    def nb_kernel_name(cls, nb: Any, name: str | None = None) -> str:
        """The kernel's name: the one asked for, or the notebook's."""
        found = name or nb.metadata.get("kernelspec", {}).get("name")
        return str(found or "python3")

    @classmethod
    def nb_language(cls, nb: Any, language: str | None = None) -> str:
        """The notebook's language, for papermill's parameter cell."""
        metadata = nb.metadata
        found = (
            language
            or metadata.get("language_info", {}).get("name")
            or metadata.get("kernelspec", {}).get("language")
        )
        return str(found or "python")
