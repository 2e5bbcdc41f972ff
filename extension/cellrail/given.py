"""Parameters and labels as people type them: `-p -r -f -y -b` with papermill's meanings, `--label`.

One reading for the command line and for `%flow`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cellrail.errors import UserError


def parameters_of(
    *,
    typed: Iterable[tuple[str, str]] = (),
    raw: Iterable[tuple[str, str]] = (),
    files: Iterable[str] = (),
    yamls: Iterable[str] = (),
    encoded: Iterable[str] = (),
) -> dict[str, Any]:
    """Values by name, in papermill's order: later ones win.

    Args:
        typed: of `-p`: names and values.
        raw: of `-r`: names and plain strings.
        files: of `-f`: YAML or JSON files.
        yamls: of `-y`: YAML.
        encoded: of `-b`: base64 of YAML.

    Raises:
        UserError: something cannot be read.
    """
    parameters: dict[str, Any] = {}
    for text in encoded:
        parameters.update(_yaml(_decoded(text), "-b"))
    for file in files:
        parameters.update(_yaml(_read(file), f"-f {file}"))
    for text in yamls:
        parameters.update(_yaml(text, "-y"))
    parameters.update({name: typed_value(value) for name, value in typed})
    parameters.update(dict(raw))
    return parameters


def typed_value(text: str) -> Any:
    """A parameter's value as papermill's command line reads it."""
    words: dict[str, Any] = {"True": True, "False": False, "None": None}
    if text in words:
        return words[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def parse_labels(words: Iterable[str]) -> dict[str, str]:
    """`K=V` words as labels.

    Raises:
        UserError: a word is none.
    """
    labels = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UserError(f"a label is KEY=VALUE, not {word!r}")
        labels[key] = value
    return labels


def _yaml(text: str, where: str) -> dict[str, Any]:
    import yaml
    from papermill.iorw import NoDatesSafeLoader

    try:
        # dates stay strings, as in papermill; typed dates are made where the notebook asks for them
        values = yaml.load(text, Loader=NoDatesSafeLoader)  # noqa: S506 - a safe loader's subclass
    except yaml.YAMLError as error:
        raise UserError(f"{where}: no YAML: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{where}: a mapping of names to values is needed")
    return {str(name): value for name, value in values.items()}


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode()
    except ValueError as error:
        raise UserError(f"-b: no base64: {error}") from error


def _read(file: str) -> str:
    try:
        return Path(file).read_text("utf-8")
    except OSError as error:
        raise UserError(f"-f {file}: {error.strerror}") from error
