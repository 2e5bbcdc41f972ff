"""`serve`."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from cellrail.app import App
from cellrail.cli.common import Context, common_options
from cellrail.errors import UserError


@click.command()
@click.argument("words", nargs=-1, metavar="[FOLDER] [-- JUPYTER_OPTIONS]")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=None, metavar="N", help="(default: 8770)."
)
@click.option("--ip", default="127.0.0.1", metavar="ADDRESS", help="(default: 127.0.0.1).")
@click.option("--base-path", default="/", metavar="PATH", help="As a proxy has it (default: /).")
@click.option(
    "--url", default="", metavar="URL",
    help="Where people reach it, as in https://flows.example.org/cellrail (default: base_url).",
)  # fmt: skip
@click.option(
    "--workers", type=click.IntRange(min=1), metavar="N",
    help="So many runs that are due at the same time (default: one a processor).",
)  # fmt: skip
@click.option("--no-fire", is_flag=True, help="Fire no triggers and timers.")
@common_options
def serve(
    *, context: Context, words: tuple[str, ...], port: int | None, ip: str, base_path: str,
    url: str, workers: int | None, no_fire: bool,
) -> int:  # fmt: skip
    """Serve the notebooks below FOLDER: links of waits, the API, triggers and timers.

    Who asks needs a token, as in Jupyter: JUPYTER_TOKEN, JUPYTER_TOKEN_FILE, or one that is made
    and printed. Links of waits need none.
    """
    folder, jupyter = _folder_of(words)
    app = App(context.store, notebook=folder / "any")
    try:
        from cellrail.server.app import DEFAULT_PORT, ServeOptions, make
    except ImportError as error:
        raise UserError(
            f"the server needs Jupyter Server ({error})", hint="pip install 'cellrail[server]'"
        ) from error
    options = ServeOptions(
        store=app.begin_store(), keys=app.keys, ip=ip, url=url, base_path=base_path,
        port=DEFAULT_PORT if port is None else port, fires=not no_fire, workers=workers or 0,
        log_level=_level(context), jupyter=jupyter,
    )  # fmt: skip
    make(options).start()
    return 0


def _folder_of(words: tuple[str, ...]) -> tuple[Path, tuple[str, ...]]:
    """The folder, and what is for Jupyter Server."""
    given = bool(words) and not words[0].startswith("-")
    folder, rest = Path(words[0] if given else "."), words[1:] if given else words
    odd = [word for word in rest if not word.startswith("-")]
    if odd:
        raise click.UsageError(f"one folder is served; what is {odd[0]!r}?")
    if not folder.is_dir():
        raise click.UsageError(f"there is no folder {folder}")
    return folder, rest


def _level(context: Context) -> int:
    if context.quiet:
        return logging.WARNING
    return logging.DEBUG if context.verbose else logging.INFO
