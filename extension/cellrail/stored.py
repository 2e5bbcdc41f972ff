"""`%flow state|resource|variable list|get|set|delete`: the command line's, in a cell."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cellrail.errors import NotJson, UserError

if TYPE_CHECKING:
    from cellrail.app import App

_WORDS = {"list": 0, "get": 1, "set": 2, "delete": 1}


class StoredCommand:
    """One such line."""

    def __init__(self, app: App, kind: str, options: Mapping[str, str]) -> None:
        """Know what it is about.

        Args:
            app: the store's.
            kind: state, resource or variable.
            options: `secret`, `reveal`, `type` and `if-version`, as given.
        """
        self._app: Any = app
        self._kind, self._options = kind, options

    def carry_out(self, words: list[str]) -> Any:
        """Do it; what the cell displays.

        Raises:
            UserError: the words are no such command.
        """
        action, *rest = words or ["list"]
        if action not in _WORDS or len(rest) != _WORDS[action]:
            raise UserError(
                f"{self._kind} list, get PATH, set PATH VALUE, or delete PATH; "
                f"not {' '.join(words)!r}"
            )
        if action == "list":
            return getattr(self._app, f"{self._kind}_list")()
        if action == "get":
            return self._get(rest[0])
        if action == "set":
            return self._set(*rest)
        getattr(self._app, f"{self._kind}_delete")(rest[0], if_version=self._version())
        return None

    def _version(self) -> int | None:
        text = self._options.get("if-version")
        if text is None:
            return None
        if not text.isdigit():
            raise UserError(f"--if-version {text}: a version is a number")
        return int(text)

    def _get(self, path: str) -> Any:
        hidden = self._kind == "variable" and "reveal" not in self._options
        if hidden and self._app.variable_is_secret(path):
            return "***"
        return getattr(self._app, f"{self._kind}_get")(path)

    def _set(self, path: str, text: str) -> Any:
        more: dict[str, Any] = {"if_version": self._version()}
        if self._kind == "variable":
            return self._app.variable_set(path, text, secret="secret" in self._options, **more)
        if self._kind == "resource":
            more["resource_type"] = self._options.get("type")
        return getattr(self._app, f"{self._kind}_set")(path, _value(text), **more)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise NotJson(f"the value is no JSON: {error}", hint="quote it: '{\"a\": 1}'") from error
