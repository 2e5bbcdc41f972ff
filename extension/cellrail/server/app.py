"""The server alone: `cellrail serve`.

It is Jupyter Server with nothing in it but this extension: its login and checks, without its files,
kernels and terminals, and without other extensions.
"""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from jupyter_server.serverapp import ServerApp
from jupyter_server.services.contents.filemanager import AsyncFileContentsManager
from traitlets.config import Config

from cellrail.errors import UserError
from cellrail.settings import load_settings

DEFAULT_PORT = 8770
#: no request has a longer body; those of the API end sooner (`auth.BODY_BYTES`)
_HTTP_BODY_BYTES = 8 << 20


class NoFiles(AsyncFileContentsManager):
    """Serves no files."""

    def get_extra_handlers(self) -> list[Any]:
        """None: Jupyter's would serve every file below the root."""
        return []


class CellrailServer(ServerApp):
    """Jupyter Server, with nothing of its own but the login.

    Its settings are those of `cellrail_server_config.py` in Jupyter's folders, not those of the
    user's notebook server: what is opened there is not opened here.
    """

    name = "cellrail-server"
    default_services = ("auth",)  # type: ignore[assignment]  # typed by its length

    def init_signal(self) -> None:
        """End in good order, without a question: nothing is lost."""
        names = ("SIGINT", "SIGTERM", "SIGHUP")
        for number in (getattr(signal, name) for name in names if hasattr(signal, name)):
            if signal.getsignal(number) is not signal.SIG_IGN:  # (nohup)
                signal.signal(number, self._signal_stop)

    def running_server_info(self, kernel_count: bool = True) -> str:
        """What is told at its start."""
        del kernel_count
        return f"the API's document: {self.display_url}"


class ServeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to serve."""

    store: Path
    #: folder of the signing keys; "" for the user's own
    keys: str = ""
    #: the address that it listens on; beyond loopback only where that is told
    ip: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    #: where its paths begin, as behind a proxy
    base_path: str = "/"
    #: where people reach it, as in https://flows.example.org/cellrail; "" for the setting base_url,
    #: else the address
    url: str = ""
    #: fire what is due
    fires: bool = True
    #: so many runs that are due at the same time; 0 for one a processor
    workers: int = 0
    log_level: int = logging.INFO
    #: what Jupyter Server understands, as `--ServerApp.certfile=…`
    jupyter: tuple[str, ...] = ()


def make(options: ServeOptions) -> CellrailServer:
    """A server that is about to start: `start` serves until it is told to stop.

    Raises:
        UserError: the port is taken, or nobody would have to log in.
    """
    server = CellrailServer(config=_config(options), jpserver_extensions={"cellrail": True})
    server.no_browser_open_file = True
    try:
        server.initialize(
            argv=list(options.jupyter), find_extensions=False, starter_extension="cellrail"
        )
    except SystemExit as error:
        raise UserError(
            f"the server cannot start on {options.ip}:{options.port}",
            hint="its log tells why; another --port may be free",
        ) from error
    if not server.identity_provider.auth_enabled:
        raise UserError(
            "nobody would have to log in: anybody who reaches the server could run code",
            hint="leave IdentityProvider.token as it is, or set JUPYTER_TOKEN",
        )
    return server


def _config(options: ServeOptions) -> Config:
    config = Config()
    server, extension = config.ServerApp, config.CellrailExtension
    server.ip, server.port, server.port_retries = options.ip, options.port, 0
    server.base_url, server.root_dir = options.base_path, str(options.store.parent)
    server.open_browser = False
    server.allow_root, server.contents_manager_class = True, NoFiles
    server.max_body_size = server.max_buffer_size = _HTTP_BODY_BYTES
    server.log_level = options.log_level
    extension.store, extension.keys = str(options.store), options.keys
    extension.url, extension.fires = options.url, options.fires
    if options.workers:
        extension.workers = options.workers
    reached = options.url or load_settings(options.store.parent).base_url
    host = urlsplit(reached).hostname
    if host:
        server.local_hostnames = ["localhost", host]
    token = _token()
    if token:
        config.IdentityProvider.token = token
    return config


def _token() -> str:
    """The token that the environment tells; Jupyter takes a file's last newline for a part."""
    path = os.environ.get("JUPYTER_TOKEN_FILE", "")
    if os.environ.get("JUPYTER_TOKEN") or not path:
        return ""
    try:
        return Path(path).read_text("utf-8").strip()
    except OSError as error:
        raise UserError(f"the token in {path} cannot be read: {error.strerror}") from error
