"""Secrets out of everything that is kept: outputs, sources, tracebacks, parameters, commands.

Exact occurrences of a secret's text are replaced, also where it stands as a Python literal or in
JSON. Derived forms (base64, a hash, a part of it) are not covered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: what stands in a secret's place
MASK = "***"
#: shorter values would mask half of what people write
MINIMUM_LENGTH = 3
#: nor are shorter ones kept from what is stored
KEPT_LENGTH = 8


class Masker:
    """Replaces the run's secrets in text and in JSON-able values."""

    def __init__(self, secrets: Mapping[str, object] | None = None) -> None:
        """Know the secrets.

        Args:
            secrets: values by parameter name. Values that are no strings are masked by their
                `str` and `repr`.
        """
        values = dict(secrets or {})
        self.names = frozenset(values)
        self._forms: Sequence[str] = ()
        #: the secrets themselves
        self.secrets: list[str] = []
        for value in values.values():
            self.learn(value if isinstance(value, str) else str(value))

    def learn(self, secret: str) -> None:
        """Know another secret from now on."""
        if secret not in self.secrets:
            self.secrets.append(secret)
        forms = {secret, repr(secret)[1:-1], _json_form(secret), *self._forms}
        # longest first: a secret that contains another is masked whole
        known = (form for form in forms if len(form) >= MINIMUM_LENGTH)
        self._forms = sorted(known, key=len, reverse=True)

    def finds(self, text: str) -> bool:
        """Whether a text that is to be kept holds a secret; very short ones are not looked for."""
        return any(len(form) >= KEPT_LENGTH and form in text for form in self._forms)

    def __bool__(self) -> bool:
        return bool(self._forms)

    def text(self, text: str) -> str:
        """The text without secrets."""
        for form in self._forms:
            if form in text:
                text = text.replace(form, MASK)
        return text

    def value(self, value: Any) -> Any:
        """A JSON-able value without secrets (a copy where there are secrets to look for)."""
        if not self._forms:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.value(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(item) for item in value]
        return value

    def parameters(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters by name, the secret ones masked whatever their value."""
        return {
            name: MASK if name in self.names else self.value(value)
            for name, value in parameters.items()
        }


def _json_form(text: str) -> str:
    import json

    return json.dumps(text)[1:-1]
