"""`-p -r -f -y -b` with papermill's meanings, and `--label`."""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click


def parameter_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the parameter options and `--label`; the command gets `parameters` and `labels`."""

    @click.option(
        "-p", "--parameters", "typed", nargs=2, multiple=True, metavar="NAME VALUE",
        help="A parameter; numbers, booleans and None are recognised.",
    )  # fmt: skip
    @click.option(
        "-r", "--parameters_raw", "raw", nargs=2, multiple=True, metavar="NAME VALUE",
        help="A parameter as a plain string.",
    )  # fmt: skip
    @click.option(
        "-f", "--parameters_file", "files", multiple=True, metavar="FILE",
        help="Parameters from a YAML or JSON file.",
    )  # fmt: skip
    @click.option("-y", "--parameters_yaml", "yamls", multiple=True, metavar="YAML",
                  help="Parameters as YAML.")  # fmt: skip
    @click.option("-b", "--parameters_base64", "encoded", multiple=True, metavar="BASE64",
                  help="Parameters as base64 of YAML.")  # fmt: skip
    @click.option("--label", "labels", multiple=True, metavar="K=V",
                  help="A label of the run; repeatable.")  # fmt: skip
    @functools.wraps(function)
    def with_parameters(
        *args: Any,
        typed: Iterable[tuple[str, str]],
        raw: Iterable[tuple[str, str]],
        files: Iterable[str],
        yamls: Iterable[str],
        encoded: Iterable[str],
        labels: Iterable[str],
        **options: Any,
    ) -> Any:
        # papermill's order: later ones win
        parameters: dict[str, Any] = {}
        for text in encoded:
            parameters.update(_yaml(_decoded(text), "-b"))
        for file in files:
            parameters.update(_yaml(_read(file), f"-f {file}"))
        for text in yamls:
            parameters.update(_yaml(text, "-y"))
        parameters.update({name: typed_value(value) for name, value in typed})
        parameters.update(dict(raw))
        return function(*args, parameters=parameters, labels=parse_labels(labels), **options)

    return with_parameters


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
    """`K=V` words as labels."""
    labels = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise click.UsageError(f"a label is KEY=VALUE, not {word!r}")
        labels[key] = value
    return labels


def _yaml(text: str, where: str) -> dict[str, Any]:
    import yaml
    from papermill.iorw import NoDatesSafeLoader

    try:
        # dates stay strings, as in papermill; typed dates are made where the notebook asks for them
        values = yaml.load(text, Loader=NoDatesSafeLoader)  # noqa: S506 - a safe loader's subclass
    except yaml.YAMLError as error:
        raise click.UsageError(f"{where}: no YAML: {error}") from error
    if not isinstance(values, dict):
        raise click.UsageError(f"{where}: a mapping of names to values is needed")
    return {str(name): value for name, value in values.items()}


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode()
    except ValueError as error:
        raise click.UsageError(f"-b: no base64: {error}") from error


def _read(file: str) -> str:
    try:
        return Path(file).read_text("utf-8")
    except OSError as error:
        raise click.UsageError(f"-f {file}: {error.strerror}") from error
