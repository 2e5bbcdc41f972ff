"""What docs/deployment.md and docs/server.md tell people to write, the server understands."""

from __future__ import annotations

import configparser
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import click
import pytest

ROOT = Path(__file__).resolve().parents[2]
DEPLOYMENT = (ROOT / "docs" / "deployment.md").read_text("utf-8")
SERVER = (ROOT / "docs" / "server.md").read_text("utf-8")
MARK = "<!-- checked by tests/acceptance/test_deployment.py -->\n"


def blocks(language: str) -> list[str]:
    return [
        text.split("```")[0]
        for text in DEPLOYMENT.split(f"{MARK}```{language}\n")[1:]
    ]  # fmt: skip


def parsed(words: list[str]) -> click.Context:
    from cellrail.cli.serving import serve

    return serve.make_context("serve", words)


def test_the_unit_starts_a_command_that_there_is_and_leaves_workers_alone(tmp_path):
    (text,) = blocks("ini")
    unit = configparser.ConfigParser(strict=True, interpolation=None, allow_no_value=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(text)
    assert unit["Service"]["KillMode"] == "process"
    (tmp_path / "flows").mkdir()
    words = shlex.split(unit["Service"]["ExecStart"].replace("%h", str(tmp_path)))
    assert words[0].endswith("/bin/cellrail")
    assert words[1] == "serve"
    assert parsed(words[2:]).params["port"] == 8770


def test_the_hubs_service_starts_a_command_that_there_is(tmp_path):
    _, text = blocks("python")
    c = SimpleNamespace(JupyterHub=SimpleNamespace(services=None))
    exec(compile(text, "jupyterhub_config.py", "exec"), {"c": c})
    (service,) = c.JupyterHub.services
    words = [word.replace("/srv/flows", str(tmp_path)) for word in service["command"]]
    assert words[:2] == ["cellrail", "serve"]
    given = parsed(words[2:]).params
    assert service["url"].endswith(f":{given['port']}")
    assert given["base_path"] == f"/services/{service['name']}/"
    assert given["url"].endswith(f"{given['base_path']}cellrail")


def test_the_single_user_servers_setting_is_one(monkeypatch):
    from cellrail.server.extension import CellrailExtension

    text = blocks("python")[0]
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/ann/")
    c = SimpleNamespace(CellrailExtension=SimpleNamespace())
    exec(compile(text, "jupyter_cellrail_config.py", "exec"), {"c": c})
    assert c.CellrailExtension.url == "https://hub.example.org/user/ann/cellrail"
    assert "url" in CellrailExtension.class_trait_names(config=True)


@pytest.mark.parametrize("page", ["server", "deployment"])
def test_every_option_of_serve_that_is_told_is_one(page):
    from cellrail.cli.serving import serve

    known = {name for parameter in serve.params for name in parameter.opts}
    text = {"server": SERVER, "deployment": DEPLOYMENT}[page]
    told = re.findall(r"cellrail serve ([^`\n]*)", text)
    told += re.findall(r"^\| `(--[a-z-]+[^`]*)`", text, re.MULTILINE)
    options = {
        word
        for line in told
        for word in line.partition(" -- ")[0].split()
        if word.startswith("--") and word != "--"
    }
    assert options <= known
    assert options


def test_the_paths_that_are_told_are_in_the_document():
    from cellrail.server import api

    known = {one.path for one in api.endpoints()}
    told = set(re.findall(r"(/(?:runs|triggers|backfills)(?:/[A-Z]+)?)(?=[`/ ])", SERVER))
    names = {"RUN": "{run}", "ID": "{trigger}"}
    for path in told:
        head, _, last = path.rpartition("/")
        wanted = {f"{head}/{names.get(last, last)}", path.replace("ID", "{backfill}")}
        assert wanted & known, path
