"""The extension of Jupyter Server: handlers, and the loop that fires what is due."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import msgspec
from jupyter_server.extension.application import ExtensionApp
from jupyter_server.serverapp import ServerApp
from jupyter_server.utils import url_path_join
from tornado.web import HTTPError
from traitlets import Bool, Int, Unicode

from cellrail import settings as settings_module
from cellrail.server import api, kestra, openapi
from cellrail.server.auth import Base, lets_in
from cellrail.server.endpoints import Api, Endpoint
from cellrail.server.links import links_of
from cellrail.server.service import Place, Service
from cellrail.server.ticking import Rounds

#: below the server's base URL
PREFIX = "/cellrail"
API = PREFIX + "/api/v1"


class Document(Base):
    """Tells what the API is."""

    def initialize(self, service: Service, **given: Any) -> None:
        """Know it."""
        super().initialize(service)
        self._document = given["document"]

    @lets_in("read")
    async def get(self) -> None:
        """The document."""
        self.reply(self._document)


class Nowhere(Base):
    """What is below the API and is no endpoint."""

    @lets_in("read")
    async def get(self) -> None:
        """It is not there."""
        raise HTTPError(404, "there is no such endpoint")

    head = post = put = patch = delete = get


class CellrailExtension(ExtensionApp):
    """Serves one store: the one of the server's root folder, unless another is named."""

    name = "cellrail"
    load_other_extensions = False
    extension_url = API + "/openapi.json"

    store = Unicode(help="The store's folder; by default the one of the server's root.").tag(
        config=True
    )
    keys = Unicode(help="Folder of the signing keys; by default the user's own.").tag(config=True)
    url = Unicode(
        help="Where people and programs reach this server, as in https://flows.example.org/cellrail"
        " (default: the setting base_url, else the address that it listens on)."
    ).tag(config=True)
    fires = Bool(
        True, help="Fire what is due: triggers, timers, backfills whose process is gone."
    ).tag(config=True)
    workers = Int(
        max(1, os.cpu_count() or 1), min=1, help="So many runs that are due at the same time."
    ).tag(config=True)

    def initialize_handlers(self) -> None:
        """The handlers, below the server's base URL."""
        root = Path(self._server.root_dir).resolve()
        settings = settings_module.load_settings(root)
        named = Path(self.store).expanduser().resolve() if self.store else None
        store = named or settings_module.find_store(root, settings)
        place = Place(store=store, keys=self.keys)
        self._store_path, self._url = place.store, self.url or settings.base_url
        self._rounds = Rounds(
            place.app, log=self.log, workers=self.workers, fires=self.fires, url=self._own_url
        )
        self._service = Service(place.app, self._rounds)
        self.handlers.extend(self._rules(self._server.base_url.rstrip("/")))

    def _rules(self, base: str) -> list[tuple[Any, ...]]:
        service, root = self._service, base + API
        under, beside = api.endpoints(), [kestra.endpoint()]
        # (with Kestra's tenant in its path, as newer ones have it)
        tenant = [_at(one, "/api/v1/main/triggers") for one in beside]
        based = [_at(one, base + one.path) for one in beside]
        told = openapi.document(root, under, based, base + PREFIX)
        return [
            *links_of(PREFIX, service),
            (rf"{API}/openapi\.json", Document, {"service": service, "document": told}),
            *_rules(API, under, service, root),
            *_rules("", [*beside, *tenant], service, root),
            (rf"{API}/.*", Nowhere, {"service": service}),
        ]

    async def _start_jupyter_server_extension(self, serverapp: Any) -> None:
        """The server listens: links lead to it from now on, and what is due is fired."""
        del serverapp
        self._rounds.start()
        told = "" if self.fires else "; it fires nothing"
        self.log.info("cellrail serves %s at %s%s", self._store_path, self._own_url(), told)

    def _own_url(self) -> str:
        """Where links begin; the port is known once the server listens."""
        return self._url or url_path_join(self._server.connection_url, PREFIX)

    @property
    def _server(self) -> ServerApp:
        assert self.serverapp is not None
        return self.serverapp

    async def stop_extension(self) -> None:
        """No more is fired. What runs goes on to its end, in processes of its own."""
        if not hasattr(self, "_rounds"):
            return
        left = self._rounds.under_way
        await asyncio.to_thread(self._rounds.stop)
        self._service.close()
        if left:
            self.log.info("these go on to their end by themselves: %s", ", ".join(left))


def _rules(
    prefix: str, endpoints: list[Endpoint], service: Service, root: str
) -> list[tuple[Any, ...]]:
    """Tornado's rules: one for each path."""
    paths: dict[str, dict[str, Endpoint]] = {}
    for one in endpoints:
        pattern = prefix + one.path
        for name, expression in one.patterns.items():
            pattern = pattern.replace(f"{{{name}}}", f"(?P<{name}>{expression})")
        paths.setdefault(pattern, {})[one.method] = one
    return [
        (pattern, Api, {"service": service, "endpoints": found, "root": root})
        for pattern, found in paths.items()
    ]


def _at(one: Endpoint, path: str) -> Endpoint:
    return msgspec.structs.replace(one, path=path)
