"""Secrets out of everything that is kept: outputs, sources, tracebacks, parameters, commands.

Exact occurrences of a secret's text are replaced, also where it stands as a Python literal or in
JSON. Derived forms (base64, a hash, a part of it) are not covered.

A key that identifies something must stay one: there a digest stands in a secret's place (`key`). It
is the same for the same secret, another for another one, and only who has the signing key can tell
which secret it is of.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

#: what stands in a secret's place
MASK = "***"
#: shorter values would mask half of what people write
MINIMUM_LENGTH = 3
#: nor are shorter ones kept from what is stored
KEPT_LENGTH = 8
#: hexadecimal digits of the digest that stands in a secret's place in a key
_DIGITS = 16


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

    def key(self, key: str, seal: bytes, *, shortest: int = MINIMUM_LENGTH) -> str:
        """A key without secrets: equal for the same one, another for another.

        Args:
            key: what identifies something.
            seal: the user's signing key (32 bytes).
            shortest: shorter secrets stay.
        """
        found = [form for form in self._forms if len(form) >= shortest and form in key]
        if not found:
            return key
        # at once: a secret may stand in what stands for another
        return re.sub("|".join(map(re.escape, found)), lambda m: _sealed(m[0], seal), key)

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


def _sealed(secret: str, seal: bytes) -> str:
    """What stands for a secret in a key (keyed BLAKE3)."""
    from blake3 import blake3

    made = blake3(b"a secret in a key\0" + secret.encode("utf-8", "surrogatepass"), key=seal)
    return f"secret-{made.hexdigest()[:_DIGITS]}"


def _json_form(text: str) -> str:
    import json

    return json.dumps(text)[1:-1]
