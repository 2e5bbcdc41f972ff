"""Gathers what code shows in this very kernel, as nbformat outputs, while the front end gets it.

A cell that runs several turns has to know what each of them showed; and IPython keeps a cell's
outputs itself only from version 9 on, and not those of cells with a top-level `await`.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from cellrail.run.streams import coalesce

Output = dict[str, Any]


class Outputs:
    """Outputs of one execution."""

    def __init__(self, shell: Any, execution_count: int | None) -> None:
        self._shell, self._count = shell, execution_count
        self._made: list[Output] = []
        self._clear_first = False

    def taken(self) -> list[Output]:
        """What was shown, neighbouring pieces of one stream joined."""
        shown = ({k: v for k, v in made.items() if k != "display_id"} for made in self._made)
        return coalesce(shown)

    @contextlib.contextmanager
    def gathering(self) -> Iterator[None]:
        """Gather what is shown meanwhile."""
        hook, publisher = self._shell.displayhook, self._shell.display_pub
        with (
            _replaced(sys.stdout, "write", self._writing("stdout", sys.stdout.write)),
            _replaced(sys.stderr, "write", self._writing("stderr", sys.stderr.write)),
            _replaced(publisher, "publish", self._publishing(publisher.publish)),
            _replaced(publisher, "clear_output", self._clearing(publisher.clear_output)),
            _replaced(hook, "write_format_data", self._displaying(hook.write_format_data)),
        ):
            yield

    def _add(self, output: Output) -> None:
        if self._clear_first:
            self._clear_first = False
            self._made.clear()
        self._made.append(output)

    def _writing(self, name: str, write: Any) -> Any:
        def writes(text: Any, *rest: Any, **named: Any) -> Any:
            written = write(text, *rest, **named)
            if text:
                self._add({"output_type": "stream", "name": name, "text": text})
            return written

        return writes

    def _publishing(self, publish: Any) -> Any:
        def publishes(*given: Any, **named: Any) -> Any:
            data = given[0] if given else named.get("data", {})
            metadata = given[1] if len(given) > 1 else named.get("metadata")
            self._published(dict(data), dict(metadata or {}), named)
            return publish(*given, **named)

        return publishes

    def _published(self, data: Output, metadata: Output, named: dict[str, Any]) -> None:
        output = {"output_type": "display_data", "data": data, "metadata": metadata}
        display_id = (named.get("transient") or {}).get("display_id")
        if named.get("update"):
            for known in self._made:
                if known.get("display_id") == display_id:
                    known.update(data=data, metadata=metadata)
            return
        self._add({**output, "display_id": display_id} if display_id else output)

    def _clearing(self, clear_output: Any) -> Any:
        def clears(wait: bool = False) -> Any:
            self._clear_first = wait
            if not wait:
                self._made.clear()
            return clear_output(wait)

        return clears

    def _displaying(self, write_format_data: Any) -> Any:
        def displays(data: Any, metadata: Any = None) -> Any:
            self._add(
                {
                    "output_type": "execute_result",
                    "data": dict(data),
                    "metadata": dict(metadata or {}),
                    "execution_count": self._count,
                }
            )
            return write_format_data(data, metadata)

        return displays


@contextlib.contextmanager
def _replaced(owner: Any, name: str, by: Any) -> Iterator[None]:
    own = vars(owner).get(name) if hasattr(owner, "__dict__") else None
    setattr(owner, name, by)
    try:
        yield
    finally:
        if own is not None:
            setattr(owner, name, own)
        elif vars(owner).get(name) is by:
            delattr(owner, name)
