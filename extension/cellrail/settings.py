"""Where the store is, and the other settings.

A setting is looked up on the command line, then in `CELLRAIL_*`, then in `[tool.cellrail]` of the
nearest pyproject.toml, then among the defaults.

The store of a notebook is, in this order: the one that is named (`--store`, `CELLRAIL_STORE`,
`[tool.cellrail] store`), the nearest `.cellrail/` in the notebook's folder or above it that belongs
to the user (not above the home folder, not across a file system), or a new `.cellrail/` beside the
notebook.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from cellrail.errors import SettingsError

STORE_NAME = ".cellrail"
_PREFIX = "CELLRAIL_"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What can be set once for all commands."""

    #: the store's folder; "" for the nearest one
    store: str = ""
    #: folder of the signing keys; "" for the user's Jupyter data folder
    keys: str = ""
    #: largest value that is stored, in bytes; None for no limit
    max_value: int | None = None
    #: longest time one checkpoint may take, in seconds; None for no limit
    max_seconds: float | None = None
    #: bytes of stored values at which a store is full; None for no limit
    max_store: int | None = None
    #: seconds each cell may take; None for no limit
    cell_timeout: float | None = None
    #: a checkpoint that cannot be written fails its step
    strict: bool = False
    #: on a headless restart, values above so many bytes are read when a cell can reach them
    lazy_above: int = 1 << 18
    #: where the URLs that `flow.suspend` and `flow.rerun` hand out begin; "" for the server that
    #: serves the store, if any
    base_url: str = ""
    #: a wait of more than so many seconds holds no kernel
    park_after: float = 5.0
    #: whether live notebooks are recorded
    record: bool = True


def load_settings(folder: Path, environment: Mapping[str, str] | None = None) -> Settings:
    """The settings that hold for a notebook in `folder`.

    Raises:
        SettingsError: a setting has an unknown name or a value of the wrong type.
    """
    values = _project_settings(folder)
    environment = os.environ if environment is None else environment
    for name in Settings.__struct_fields__:
        text = environment.get(_PREFIX + name.upper())
        if text is not None:
            values[name] = text
    unknown = sorted(set(values) - set(Settings.__struct_fields__))
    if unknown:
        raise SettingsError(
            f"unknown setting {unknown[0]!r} in [tool.cellrail]",
            hint="known: " + ", ".join(Settings.__struct_fields__),
        )
    try:
        settings: Settings = msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        name = str(error).rpartition("$.")[2].rstrip("`")
        told = f"the setting {name} has a wrong value: {values.get(name)!r}"
        raise SettingsError(told, hint=str(error).partition(" - at ")[0]) from error
    return settings


def _project_settings(folder: Path) -> dict[str, Any]:
    for parent in (folder, *folder.parents):
        candidate = parent / "pyproject.toml"
        if candidate.is_file():
            try:
                table = tomllib.loads(candidate.read_text("utf-8"))
            except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
                raise SettingsError(f"{candidate} cannot be read: {error}") from error
            values = dict(table.get("tool", {}).get("cellrail", {}))
            if "store" in values:
                values["store"] = str((parent / str(values["store"])).resolve())
            return values
    return {}


def find_store(folder: Path, settings: Settings) -> Path:
    """Where the store of a notebook in `folder` is, or would be made."""
    if settings.store:
        return Path(settings.store).expanduser().resolve()
    folder = folder.resolve()
    return _nearest(folder) or folder / STORE_NAME


def _nearest(folder: Path) -> Path | None:
    home = Path.home()
    device = folder.stat().st_dev if folder.exists() else None
    for parent in (folder, *folder.parents):
        if device is not None and parent.stat().st_dev != device:
            return None
        candidate = parent / STORE_NAME
        if candidate.is_dir() and _is_mine(candidate):
            return candidate
        if parent == home:
            return None
    return None


def _is_mine(folder: Path) -> bool:
    return not hasattr(os, "getuid") or folder.stat().st_uid == os.getuid()


def keys_folder(settings: Settings) -> Path:
    """Where the user's signing keys are: outside every store."""
    if settings.keys:
        return Path(settings.keys).expanduser()
    from jupyter_core.paths import jupyter_data_dir

    return Path(jupyter_data_dir()) / "cellrail"
