"""What `forking` has its processes to fork from run: a fork goes where it is wanted."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cellrail.kernels import zygote


def _goes_there(wait: Callable[[Any], None]) -> Callable[[Any], None]:
    def waits_and_goes(channel: Any) -> None:
        wait(channel)
        place = json.loads(Path("place.json").read_text("utf-8"))
        os.chdir(place["cwd"])
        os.environ.update(place["environment"])
        from IPython.core.getipython import get_ipython

        get_ipython().history_manager.dir_hist[:] = [Path.cwd()]

    return waits_and_goes


def main() -> None:
    """Serve as the product's process does."""
    zygote._wait_for_word = _goes_there(zygote._wait_for_word)
    zygote.main()
