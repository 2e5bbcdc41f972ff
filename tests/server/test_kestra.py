"""Kestra's call: both documented ways work word for word, but for host and token."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

TOKEN = "t0ken-of-the-tests"
#: as documented, but for host and token
CURL = """\
curl -XPUT http://localhost:8080/api/v1/triggers -H 'Content-Type: application/json' -d '{
    "backfill": {
        "start": "2024-03-28T06:30:00.000Z",
        "end": null,
        "inputs": null,
        "labels": [
            {
                "key": "reason",
                "value": "outage"
            }
        ]
    },
    "flowId": "scheduled_flow",
    "namespace": "dev",
    "triggerId": "schedule"
}'
"""
PYTHON = """\
import requests
import json

url = 'http://localhost:8080/api/v1/triggers'
headers = {
    'Content-Type': 'application/json'
}
data = {
  "backfill": {
    "start": "2024-03-28T06:30:00.000Z",
    "end": None,
    "inputs": None,
    "labels": [
      {
        "key": "reason",
        "value": "outage"
      }
    ]
  },
  "flowId": "scheduled_flow",
  "namespace": "dev",
  "triggerId": "schedule"
}
response = requests.put(url, headers=headers, data=json.dumps(data))
print(response.status_code)
print(response.text)
"""


@pytest.fixture
def kestra(served: Any, make: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A server with the flow that is documented; no process drives its backfills."""
    from cellrail.app import App

    (served.folder / "dev").mkdir()
    notebook = make("n = 0", name="dev/scheduled_flow.ipynb", tags={1: ["parameters"]})
    served.app.trigger_add(notebook, cron="*/30 * * * *", id="schedule", missed="none")
    started: list[str] = []
    monkeypatch.setattr(App, "_detach", lambda self, backfill: started.append(backfill.id))
    served.started = started
    return served


def put(served: Any, **changes: Any) -> requests.Response:
    body: dict[str, Any] = {
        "namespace": "dev", "flowId": "scheduled_flow", "triggerId": "schedule",
        "backfill": {"start": "2024-03-28T06:30:00.000Z", "end": "2024-03-28T08:00:00.000Z"},
        **changes,
    }  # fmt: skip
    return requests.put(
        f"{served.url}/api/v1/triggers", json=body, headers=served.login, timeout=30
    )


def check(served: Any, told: dict[str, Any]) -> None:
    assert told["triggerId"] == "schedule"
    assert told["backfill"]["labels"] == [{"key": "reason", "value": "outage"}]
    (fill,) = served.app.backfill_list()
    assert fill.record.start == "2024-03-28T06:30:00+00:00"
    assert fill.record.open_end
    assert fill.record.labels == {"reason": "outage"}
    assert fill.record.trigger == "schedule"


def test_the_documented_curl_call_works_word_for_word(kestra):
    words = CURL.replace("http://localhost:8080", kestra.url).replace(
        "-H 'Content-Type", f"-H 'Authorization: token {TOKEN}' -H 'Content-Type"
    )
    done = subprocess.run(
        ["bash", "-c", words.replace("curl -X", "curl -s -X")], capture_output=True, text=True,
        check=True, timeout=60,
    )  # fmt: skip
    check(kestra, json.loads(done.stdout))


def test_the_documented_python_call_works_word_for_word(kestra, tmp_path: Path):
    words = PYTHON.replace("http://localhost:8080", kestra.url).replace(
        "'Content-Type'", f"'Authorization': 'token {TOKEN}', 'Content-Type'"
    )
    done = subprocess.run(
        [sys.executable, "-c", words], capture_output=True, text=True, check=True, timeout=60
    )
    status, _, text = done.stdout.partition("\n")
    assert status == "200"
    check(kestra, json.loads(text))


def test_a_tick_at_the_start_and_one_at_the_end_are_among_them(kestra):
    assert put(kestra).status_code == 200
    (fill,) = kestra.app.backfill_list()
    ticks = [item.tick.isoformat() for item in fill.plan().items]
    assert (ticks[0], ticks[-1], len(ticks)) == (
        "2024-03-28T06:30:00+00:00", "2024-03-28T08:00:00+00:00", 4,
    )  # fmt: skip


def test_the_same_call_again_is_the_same_backfill(kestra):
    first, second = put(kestra).json(), put(kestra).json()
    assert first["backfill"]["id"] == second["backfill"]["id"]
    with kestra.app.store.backfills.driving(first["backfill"]["id"]):
        assert put(kestra).json()["backfill"]["id"] == first["backfill"]["id"]
    assert len(kestra.app.backfill_list()) == 1


def test_another_range_is_another_backfill_and_the_first_goes_on(kestra):
    put(kestra)
    other = {"start": "2024-04-01", "end": "2024-04-02"}
    assert put(kestra, backfill=other).status_code == 200
    assert len(kestra.app.backfill_list()) == 2


def test_inputs_of_the_call_win_over_those_of_the_trigger(kestra):
    backfill = {"start": "2024-03-28", "end": "2024-03-28", "inputs": {"n": 7}}
    assert put(kestra, backfill=backfill).status_code == 200
    (fill,) = kestra.app.backfill_list()
    assert fill.record.inputs == {"n": 7}


def test_the_trigger_that_is_disabled_stays_so_whatever_else_is_sent(kestra):
    kestra.app.trigger_disable("schedule")
    # as Kestra's own page sends it: the whole row
    sent = put(kestra, disabled=False, date="2024-03-28T06:30:00Z", executionId=None, stopAfter=[])
    assert (sent.status_code, sent.json()["disabled"]) == (200, True)
    assert not kestra.app.trigger_show("schedule").enabled


@pytest.mark.parametrize(
    ("changes", "near"),
    [
        ({"triggerId": "schedul"}, "schedule"),
        ({"flowId": "scheduled_flows"}, "dev/scheduled_flow.ipynb"),
        ({"namespace": "dew"}, "dev/scheduled_flow.ipynb"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_told_with_the_nearest(kestra, changes, near):
    found = put(kestra, **changes)
    assert found.status_code == 404
    assert near in found.json()["error"]["message"]


@pytest.mark.parametrize(
    "changes",
    [
        {"backfill": {"start": "never"}},
        {"backfill": {"start": "2024-03-28", "end": "2024-03-27"}},
        {"backfill": {"start": "2024-03-28", "end": "2024-03-28", "inputs": {"x": 1}}},
        {"backfill": {"start": "2024-03-28T06:31:00Z", "end": "2024-03-28T06:32:00Z"}},
        {"backfill": {"start": "2024-03-28", "labels": [{"key": "system.x", "value": "1"}]}},
        {"backfill": {"start": "2024-03-28", "end": "2024-03-28", "ticks": "some"}},
        {"backfill": {}}, {"backfill": None}, {"flowId": None}, {"namespace": 7},
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_is_422_and_starts_nothing(kestra, changes):
    found = put(kestra, **changes)
    assert found.status_code == 422
    assert found.json()["error"]["message"]
    assert kestra.app.backfill_list() == []


def test_a_tenant_in_the_path_is_passed_over_and_nobody_is_let_in_without_a_token(kestra):
    body = {
        "namespace": "dev", "flowId": "scheduled_flow", "triggerId": "schedule",
        "backfill": {"start": "2024-03-28", "end": "2024-03-28"},
    }  # fmt: skip
    url = f"{kestra.url}/api/v1/main/triggers"
    assert requests.put(url, json=body, timeout=30).status_code == 401
    assert requests.put(url, json=body, headers=kestra.login, timeout=30).status_code == 200
