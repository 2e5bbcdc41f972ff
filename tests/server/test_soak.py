"""The soak: requests of all kinds, 20 a second, while a trigger fires; memory stays flat.

Half a minute here; `make soak` takes an hour (`SOAK_SECONDS`).
"""

from __future__ import annotations

import gc
import os
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psutil
import pytest
import requests

RATE = 20.0
SECONDS = float(os.environ.get("SOAK_SECONDS", "30"))
#: what memory may grow by after the first part, in bytes
GROWTH = 24 << 20


def _requests(served: Any) -> list[tuple[str, str, dict[str, Any], set[int]]]:
    api = "/cellrail/api/v1"
    kestra = {
        "namespace": "", "flowId": "flow", "triggerId": "none", "backfill": {"start": "2025-01-01"},
    }  # fmt: skip
    return [
        ("GET", f"{api}/runs", {}, {200}),
        ("GET", f"{api}/runs/{served.run_id}", {}, {200}),
        ("GET", f"{api}/runs/{served.run_id}/steps/%231", {}, {200}),
        ("GET", f"{api}/runs/{served.run_id}/journal", {}, {200}),
        ("POST", f"{api}/runs", {"json": {"notebook": "../x.ipynb"}}, {422}),
        ("POST", f"{api}/runs/{served.run_id}/restart", {"json": {"plan": True}}, {200}),
        ("POST", f"{api}/runs", {"data": b"{" * 1000}, {400}),
        ("POST", f"{api}/runs", {"data": b"x" * (2 << 20)}, {413}),
        ("GET", f"{api}/triggers", {}, {200}),
        ("GET", f"{api}/backfills", {}, {200}),
        ("GET", f"{api}/openapi.json", {}, {200}),
        ("PUT", "/api/v1/triggers", {"json": kestra}, {404}),
        ("GET", served.resume.removeprefix(served.url), {}, {200}),
        ("POST", "/cellrail/resume/20250101-x.1.guessed", {"json": {}}, {404}),
        ("GET", f"{api}/runs", {"headers": {"Authorization": "token wrong"}}, {401}),
    ]


@pytest.mark.alone
@pytest.mark.timeout(SECONDS + 300)
def test_an_hour_of_requests_leaves_memory_flat(waiting):
    served, process = waiting, psutil.Process()
    served.app.trigger_add(served.folder / "flow.ipynb", cron="0 0 1 1 *", id="seldom")
    kinds, seen, times = _requests(served), Counter[int](), list[float]()
    samples, late = list[int](), 0

    def ask(number: int) -> None:
        method, path, options, wanted = kinds[number % len(kinds)]
        headers = {**served.login, **options.get("headers", {})}
        given = {**options, "headers": headers}
        asked = time.monotonic()
        found = requests.request(method, served.url + path, timeout=60, **given)
        times.append(time.monotonic() - asked)
        assert found.status_code in wanted, (method, path, found.status_code, found.text[:300])
        seen[found.status_code] += 1

    total, began = int(SECONDS * RATE), time.monotonic()
    with ThreadPoolExecutor(8) as clients:
        asking: list[Future[None]] = []
        for number in range(total):
            time.sleep(max(0.0, began + number / RATE - time.monotonic()))
            asking = [one for one in asking if not one.done() or one.result() is not None]
            late += len(asking) > 2 * RATE  # it is two seconds behind
            asking.append(clients.submit(ask, number))
            if number % max(1, total // 40) == 0:
                gc.collect()
                samples.append(process.memory_info().rss)
        for one in asking:
            one.result()
    threads = process.num_threads()
    # the first quarter fills caches
    first = max(samples[: len(samples) // 4 + 1])
    last = max(samples[-len(samples) // 4 :])
    print(
        f"\n{total} requests in {time.monotonic() - began:.0f} s: {dict(seen)}; slowest "
        f"{max(times):.2f} s; {late} late; memory {first / 1e6:.0f} -> {last / 1e6:.0f} MB; "
        f"{threads} threads, {process.num_fds()} files"
    )
    assert last - first < GROWTH
    assert time.monotonic() - began < 1.5 * SECONDS + 10
    assert served.answer() is None
