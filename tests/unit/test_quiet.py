"""`-q` of a command is for that command: in a notebook others follow it in the same process."""

from __future__ import annotations

import logging

import click
import pytest

from cellrail.cli.common import Context, common_options


@pytest.mark.parametrize("fails", [False, True])
def test_remarks_are_kept_back_while_the_command_runs(fails):
    logger, seen = logging.getLogger("cellrail"), []
    before = logger.level

    @click.command()
    @common_options
    def work(*, context: Context) -> None:
        seen.append((context.quiet, logger.getEffectiveLevel()))
        if fails:
            raise click.ClickException("no")

    try:
        work.main(["-q"], standalone_mode=False)
    except click.ClickException:
        assert fails
    assert seen == [(True, logging.ERROR)]
    assert logger.level == before
