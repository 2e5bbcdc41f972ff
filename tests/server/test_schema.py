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

EXAMPLES = int(os.environ.get("SCHEMA_EXAMPLES", "10"))


@pytest.fixture
def document(waiting: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the server tells of itself."""
    monkeypatch.setattr(App, "_detach", lambda self, backfill: None)
    waiting.app.trigger_add(waiting.folder / "flow.ipynb", cron="@daily", id="daily")
    return schemathesis.openapi.from_dict(waiting.get("/openapi.json").json())


schema = schemathesis.pytest.from_fixture("document")


@schema.parametrize()
@settings(
    max_examples=EXAMPLES, deadline=None, derandomize="SCHEMA_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate],
)  # fmt: skip
def test_every_answer_is_one_that_the_document_tells(case: Any, waiting: Any) -> None:
    executor = waiting.extension._rounds._executor
    if executor is not None:
        executor.tasks.clear()
    waiting.extension._rounds._flights.clear()
    case.call_and_validate(base_url=waiting.url, headers=waiting.login)
