"""`-p -r -f -y -b` with papermill's meanings, and `--label`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import click

from cellrail.given import parameters_of, parse_labels


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
        parameters = parameters_of(typed=typed, raw=raw, files=files, yamls=yamls, encoded=encoded)
        return function(*args, parameters=parameters, labels=parse_labels(labels), **options)

    return with_parameters
