"""The API: what it starts is executed by workers, what it tells is what the App tells."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from cellrail.server import records


def begun(served: Any, run_id: str, *, seconds: float = 60.0) -> dict[str, Any]:
    """The run, when it has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = served.get(f"/runs/{run_id}")
        if found.status_code == 200 and found.json()["status"] not in {"running", "queued"}:
            return dict(found.json())
        time.sleep(0.1)
    raise AssertionError(f"{run_id} has not ended")


def test_a_run_is_started_restarted_and_told_of(serve, make):
    served = serve(works=True)
    make("x = 1", "y = x + 1", "print(y)", tags={1: ["parameters"]})
    started = served.post(
        "/runs", json={"notebook": "flow.ipynb", "parameters": {"x": 5}, "labels": {"a": "b"}}
    )
    assert started.status_code == 202
    run = begun(served, started.json()["run_id"])
    assert (run["status"], run["parameters"], run["labels"]) == ("success", {"x": 5}, {"a": "b"})
    details = msgspec.convert(run, records.RunDetails)
    assert [step.status for step in details.steps] == ["success"] * 3

    plan = served.post(f"/runs/{run['run_id']}/restart", json={"from_step": "#3", "plan": True})
    assert [step["fate"] for step in plan.json()["steps"]] == ["kept", "kept", "executes"]
    again = served.post(f"/runs/{run['run_id']}/restart", json={"from_step": "#3"})
    second = begun(served, again.json()["run_id"])
    assert second["origin"]["run_id"] == run["run_id"]
    assert [step["status"] for step in second["steps"]] == ["kept", "kept", "success"]

    wanted = {"label": "a=b", "notebook": "flow.ipynb"}
    while "behind" in (told := served.get("/runs", params=wanted).json()):
        time.sleep(0.1)  # (a worker holds the catalog)
    listed = told["runs"]
    assert second["labels"] == {"a": "b"}
    assert [one["run_id"] for one in listed] == [second["run_id"], run["run_id"]]
    assert served.get("/runs", params={"status": "failed"}).json()["runs"] == []
    step = served.get(f"/runs/{second['run_id']}/steps/%233").json()
    assert step["outputs"][0]["text"] == "6\n"
    assert {v["name"]: v["verdict"] for v in step["variables"]}["y"] == "stored"
    lines = served.get(f"/runs/{run['run_id']}/journal", params={"limit": 2}).json()["records"]
    assert [line["seq"] for line in lines] == [0, 1]


def test_a_run_that_waits_is_resumed_and_goes_on_in_a_worker(serve, make):
    served = serve(works=True)
    make("from cellrail import flow", "u = flow.suspend('1h')", "print(flow.resume_data)")
    run_id = served.post("/runs", json={"notebook": "flow.ipynb"}).json()["run_id"]
    assert begun(served, run_id)["status"] == "suspended"
    answered = served.post(f"/runs/{run_id}/resume", json={"data": {"ok": True}})
    assert (answered.status_code, answered.json()["step"]) == (200, "#2")
    deadline = time.monotonic() + 60
    while begun(served, run_id)["status"] == "suspended" and time.monotonic() < deadline:
        time.sleep(0.1)
    run = begun(served, run_id)
    assert run["status"] == "success"
    assert "{'ok': True}" in str(served.get(f"/runs/{run_id}/steps/%233").json()["outputs"])
    assert served.post(f"/runs/{run_id}/resume").status_code == 409


def test_a_running_run_is_cancelled_and_the_answer_does_not_wait_for_its_end(serve, make):
    served = serve(works=True)
    make("import time", "time.sleep(60)")
    run_id = served.post("/runs", json={"notebook": "flow.ipynb"}).json()["run_id"]
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = served.get(f"/runs/{run_id}")
        if found.status_code == 200 and found.json()["steps"][0]["status"] == "success":
            break
        time.sleep(0.05)
    began = time.monotonic()
    assert served.post(f"/runs/{run_id}/cancel").status_code == 200
    assert time.monotonic() - began < 30  # of the cell's 60
    assert begun(served, run_id)["status"] == "cancelled"


def test_what_would_be_refused_is_refused_at_once(waiting):
    run = waiting.run_id
    refused = waiting.post(f"/runs/{run}/restart", json={"from_step": "#2"})
    assert refused.status_code == 409
    assert "is suspended" in refused.json()["error"]["message"]
    assert waiting.post(f"/runs/{run}/recover").status_code == 409
    assert (
        waiting.post(
            f"/runs/{run}/restart", json={"from_step": "nowhere", "keep_waiting": True}
        ).status_code
        == 404
    )
    assert waiting.post("/runs/zzzz-unknown/restart").status_code == 404
    assert waiting.post(f"/runs/{run}/resume", json={"step": "#1"}).status_code == 404
    assert waiting.tasks == []


def test_a_resume_by_the_api_tells_who_has_answered(waiting):
    assert waiting.post(f"/runs/{waiting.run_id}/resume").status_code == 200
    assert waiting.answer().who == "127.0.0.1"


def test_triggers_are_added_listed_disabled_and_removed(served, make):
    make("day = ''", tags={1: ["parameters"]})
    body = {
        "notebook": "flow.ipynb", "id": "daily", "cron": "30 6 * * *", "tz": "Europe/Paris",
        "parameters": {"day": "{date:%Y-%m-%d}"},
    }  # fmt: skip
    added = served.post("/triggers", json=body)
    assert (added.status_code, len(added.json()["next"])) == (201, 5)
    assert served.post("/triggers", json=body).status_code == 422
    listed = served.get("/triggers", params={"notebook": "flow.ipynb"}).json()["triggers"]
    assert [one["id"] for one in listed] == ["daily"]
    assert served.post("/triggers/daily/disable").json()["enabled"] is False
    assert served.post("/triggers/daily/enable").json()["enabled"] is True
    assert served.call("DELETE", "/triggers/daily").json() == {
        "schema": 1, "id": "daily", "removed": True,
    }  # fmt: skip
    assert served.get("/triggers/daily").status_code == 404


def test_a_secret_of_a_trigger_is_not_told(served, make):
    make("key = ''", tags={1: ["parameters"]})
    body = {
        "notebook": "flow.ipynb", "cron": "@daily", "parameters": {"key": "hunter2hunter2"},
        "secrets": ["key"],
    }  # fmt: skip
    added = served.post("/triggers", json=body)
    assert added.json()["inputs"] == {"key": "***"}
    assert "hunter2" not in served.get("/triggers").text


def test_a_backfill_is_planned_started_and_paused(served, make, monkeypatch):
    from cellrail.app import App

    make("day = ''", tags={1: ["parameters"]})
    # nobody drives it: no process is started
    monkeypatch.setattr(App, "_detach", lambda self, backfill: None)
    body: dict[str, Any] = {
        "notebook": "flow.ipynb", "start": "2025-01-01", "end": "2025-01-03", "every": "day",
        "parameters": {"day": "{date:%Y-%m-%d}"},
    }  # fmt: skip
    plan = served.post("/backfills", json={**body, "plan": True}).json()
    assert plan["counts"] == {"run": 3}
    started = served.post("/backfills", json=body)
    assert started.status_code == 202
    backfill = started.json()["backfill_id"]
    shown = served.get(f"/backfills/{backfill}").json()
    assert shown["counts"] == {"missing": 3}
    assert served.post(f"/backfills/{backfill}/pause").json()["status"] == "paused"
    assert served.post(f"/backfills/{backfill}/cancel").json()["status"] == "cancelled"
    assert served.post(f"/backfills/{backfill}/resume").status_code == 422
    listed = served.get("/backfills").json()["backfills"]
    assert [one["backfill_id"] for one in listed] == [backfill]
    assert served.get("/backfills/nowhere").status_code == 404


def test_a_method_that_is_not_there_says_which_are(served):
    found = served.call("PATCH", "/runs")
    assert (found.status_code, found.headers["Allow"]) == (405, "GET, POST")
    assert served.call("DELETE", "/runs/last").status_code == 405


def test_an_unknown_parameter_of_a_url_is_refused(served):
    assert served.get("/runs", params={"lables": "a=b"}).status_code == 422
    assert served.get("/runs", params={"limit": "many"}).status_code == 422
    assert served.get("/runs", params=[("limit", "1"), ("limit", "2")]).status_code == 422
    assert served.get("/runs?token=t0ken-of-the-tests").status_code == 200


def test_too_many_runs_at_once_are_refused_with_when_to_come_again(served, make):
    make("x = 1")
    codes = [served.post("/runs", json={"notebook": "flow.ipynb"}).status_code for _ in range(18)]
    assert codes[:16] == [202] * 16
    refused = served.post("/runs", json={"notebook": "flow.ipynb"})
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "10")


def test_the_same_handlers_answer_below_a_base_path(serve):
    served = serve(base_path="/user/ann/")
    served.url += "/user/ann"
    assert served.get("/runs").json() == {"schema": 1, "runs": []}
    paths = served.get("/openapi.json").json()["paths"]
    assert "/user/ann/cellrail/api/v1/runs" in paths
    assert served.app.store.served() == f"{served.url}/cellrail"


def test_a_server_without_a_login_does_not_start(serve):
    from cellrail.errors import UserError

    with pytest.raises(UserError, match="nobody would have to log in"):
        serve(jupyter=("--IdentityProvider.token=",))


# Jupyter leaves the socket that it has tried to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_port_that_is_taken_is_told(serve, served):
    from cellrail.errors import UserError

    with pytest.raises(UserError, match="cannot start"):
        serve(port=served.server.port)
