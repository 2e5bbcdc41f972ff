"""schemathesis sends what the OpenAPI document allows, and what it does not, to every endpoint.

Bounded here; `make schemathesis` sends more (`SCHEMA_EXAMPLES`). Nothing is executed: workers and
backfills only note what they are given, so the store stays small and each answer is quick.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings

from cellrail import App
from cellrail.server import api, kestra, openapi

EXAMPLES = int(os.environ.get("SCHEMA_EXAMPLES", "5"))
DOCUMENT = openapi.document("/cellrail/api/v1", api.endpoints(), [kestra.endpoint()], "/cellrail")

schema = schemathesis.openapi.from_dict(DOCUMENT)


@pytest.fixture
def quiet(waiting: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A server that a run waits on; what is started is only noted."""
    monkeypatch.setattr(App, "_detach", lambda self, backfill: None)
    waiting.app.trigger_add(waiting.folder / "flow.ipynb", cron="@daily", id="daily")
    return waiting


def test_the_document_is_what_the_server_tells(served: Any) -> None:
    assert served.get("/openapi.json").json() == DOCUMENT


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="SCHEMA_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)
def test_every_answer_is_one_that_the_document_tells(case: Any, quiet: Any) -> None:
    quiet.extension._rounds._flights.clear()
    case.call_and_validate(base_url=quiet.url, headers=quiet.login)
