"""The shared folder in loops: what items of a kept run have put into it is there for the others."""

from __future__ import annotations

import signal

import pytest

from reading import printed

LOOP = (
    "import os, signal, time\nfrom pathlib import Path\nfrom cellrail import flow\n"
    "(flow.shared / 'start').write_text('0')",
    "%%step score --foreach r in ['a', 'b', 'c', 'd'] --collect mark{options}\n"
    "if r == 'c' and os.path.exists('boom'):\n"
    "    time.sleep(0.3)\n"
    "    raise ValueError('boom')\n"
    "(flow.shared / r).write_text(r)",
    "%%step more --in score\n"
    "if r == 'c' and os.path.exists('kill'):\n"
    "    os.kill(os.getppid(), signal.SIGKILL)\n    time.sleep(60)\n"
    "(flow.shared / 'sub').mkdir(exist_ok=True)\n"
    "(flow.shared / 'sub' / r).write_text((flow.shared / r).read_text() * 2)\n"
    "if r == 'a': (flow.shared / 'start').unlink(missing_ok=True)\n"
    "mark = r",
    "%%step report\n"
    "print(mark, sorted((p.relative_to(flow.shared).as_posix(), p.read_text())"
    " for p in flow.shared.rglob('*') if p.is_file()))",
    "%%step last\nprint(sorted(p.name for p in flow.shared.iterdir()))",
)


def flow_of(make, options: str, name: str = "flow.ipynb"):
    return make(*(source.replace("{options}", options) for source in LOOP), name=name)


@pytest.fixture
def expected(make, app):
    """What an undisturbed run of the loop in sequence prints."""
    run = app.run(flow_of(make, "", "witness.ipynb"))
    assert run.status == "success", run.cause
    assert "('sub/d', 'dd')" in printed(run, "report")
    return printed(run, "report"), printed(run, "last")


PARALLEL = " --parallel 2"


@pytest.mark.parametrize(
    "cut", ["score[b]", "score[#2]", "score[a]/more", "score[d]/more", "report", "last"]
)
def test_a_restart_at_an_item_keeps_the_files_of_the_others(cut, make, app, expected):
    run = app.run(flow_of(make, PARALLEL))
    assert (printed(run, "report"), printed(run, "last")) == expected

    again = app.restart(run.id, from_step=cut)

    assert again.status == "success", again.cause
    assert (printed(again, "report"), printed(again, "last")) == expected
    third = app.restart(again.id, from_step="score[c]")
    assert (printed(third, "report"), printed(third, "last")) == expected


@pytest.mark.parametrize("options", [PARALLEL, PARALLEL + " --on-error skip"])
def test_failed_items_find_the_files_of_those_that_are_kept(options, make, app, expected, tmp_path):
    (tmp_path / "boom").touch()
    run = app.run(flow_of(make, options))
    (tmp_path / "boom").unlink()

    again = app.restart(run.id, **({"failed_only": True} if "skip" in options else {}))

    assert again.status == "success", again.cause
    assert (printed(again, "report"), printed(again, "last")) == expected


def test_failed_items_of_a_sequence_find_the_files_of_those_behind_them(
    make, app, expected, tmp_path
):
    (tmp_path / "boom").touch()
    run = app.run(flow_of(make, " --on-error skip"))
    (tmp_path / "boom").unlink()

    again = app.restart(run.id, failed_only=True)

    assert again.status == "success", again.cause
    assert (printed(again, "report"), printed(again, "last")) == expected


@pytest.mark.parametrize("options", ["", PARALLEL])
def test_a_killed_run_goes_on_with_the_files_of_the_items_that_had_ended(
    options, make, app, expected, cellrail, tmp_path
):
    (tmp_path / "kill").touch()
    path = flow_of(make, options)
    assert cellrail("run", path).returncode == -signal.SIGKILL
    (tmp_path / "kill").unlink()

    assert cellrail("recover", "last").returncode == 0

    run = app.show("last")
    assert (printed(run, "report"), printed(run, "last")) == expected


def test_an_item_that_failed_adds_nothing_and_a_change_is_kept_once(make, app):
    path = make(
        "from cellrail import flow",
        "%%step score --foreach r in 'abc' --parallel 1 --collect mark\n"
        "mark = r\n(flow.shared / r).write_text(r)",
        "%%step report\nprint(sorted(p.name for p in flow.shared.iterdir()))",
    )
    run = app.run(path)
    items = [
        sorted(line["effects"]["shared"])
        for line in app.journal(run.id)
        if line["type"] == "finished" and line["step"] == 2 and line.get("turns")
    ]
    assert items == [["a"], ["b"], ["c"]]
    assert printed(run, "report") == "['a', 'b', 'c']\n"


def test_a_step_behind_a_parallel_loop_is_tried_again_on_the_files_of_its_items(make, app):
    path = make(
        "import os\nfrom cellrail import flow",
        "%%step score --foreach r in 'ab' --parallel 2 --collect mark\n"
        "mark = r\n(flow.shared / r).write_text(r)",
        "%%step report --retry 1 --backoff 1ms\n"
        "found = sorted(p.name for p in flow.shared.iterdir())\n(flow.shared / 'mine').touch()\n"
        "if not os.path.exists('tried'):\n    open('tried', 'w').close()\n    raise ValueError\n"
        "print(found)",
    )
    run = app.run(path)
    assert run.status == "success", run.cause
    assert printed(run, "report") == "['a', 'b']\n"
