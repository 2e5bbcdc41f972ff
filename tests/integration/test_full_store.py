"""A store that grows large says so, and one that may not grow further takes no more values."""

from __future__ import annotations

import json

import pytest

from cellrail import App
from cellrail.cli import commands
from cellrail.errors import RestartRefused
from cellrail_state.objects import Objects


def test_what_a_run_changes_once_the_store_is_full_is_lost_and_restarts_say_so(
    make, app, tmp_path, monkeypatch
):
    notebook = make(
        "kept = bytes(range(256)) * 20", "import random\nbig = random.randbytes(200_000)",
        "late = [1, 2]", "print(len(kept), late)",
    )  # fmt: skip
    monkeypatch.setenv("CELLRAIL_MAX_STORE", "100000")
    run = App(tmp_path / ".cellrail").run(notebook)

    assert run.status == "success", run.cause
    last = run["#4"].variables
    assert {name: str(last[name].verdict) for name in ("kept", "big", "late")} == {
        "kept": "stored", "big": "stored", "late": "lost",
    }  # fmt: skip
    assert last["late"].to_dict()["reason"] == "over the limit: the store is full (max_store)"
    with pytest.raises(RestartRefused, match="late"):
        app.restart(run.id, from_step="#4")
    full = App(tmp_path / ".cellrail").run(notebook, parameters={})
    assert full["#4"].variables["big"].verdict == "lost"
    monkeypatch.delenv("CELLRAIL_MAX_STORE")
    assert App(tmp_path / ".cellrail").restart(run.id, from_step="#3").status == "success"


def test_a_large_store_says_how_much_it_holds(make, monkeypatch, capsys, tmp_path):
    notebook = str(make("import random\nx = random.randbytes(500_000)"))
    monkeypatch.chdir(tmp_path)

    def told(*words: str) -> tuple[str, str]:
        assert commands.main(["run", notebook, *words], standalone_mode=False) == 0
        told = capsys.readouterr()
        return told.out, told.err

    assert "the store holds" not in told()[1]
    # one folder in sixteen is looked at: a few values are in none of these
    monkeypatch.setattr(Objects, "size", lambda *_, **__: 12_300_000_000)
    assert "the store holds 12.3 GB; `cellrail prune --plan`" in told()[1]
    assert "the store holds" not in told("-q")[1]
    out, err = told("--json")
    assert json.loads(out)["schema"] == 1
    assert "the store holds" not in err


def test_a_sixteenth_of_the_folders_tells_the_size_of_all(tmp_path):
    objects = Objects(tmp_path)
    for number in range(2000):
        objects.put(b"%d" % number * 3000)
    exact = objects.size()
    assert exact == sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert exact * 0.5 < objects.size(roughly=True) < exact * 1.5
