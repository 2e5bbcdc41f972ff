"""What strangers try: tokens that are guessed, swapped, reused or expired; requests from other
sites; names that lead elsewhere; bodies that are too large or none."""

from __future__ import annotations

import json
import socket
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import requests

TOKEN = "t0ken-of-the-tests"
BIG = 1 << 20


def post(url: str, **options: Any) -> requests.Response:
    return requests.post(url, timeout=30, **options)


# --- tokens ----------------------------------------------------------------------------------


def test_a_guessed_token_is_not_known_whatever_is_right_about_it(waiting):
    head, _, secret = waiting.resume.rpartition(".")
    flipped = secret[:-1] + ("A" if secret[-1] != "A" else "B")
    for guess in (f"{head}.{flipped}", f"{head}.", f"{head}.{secret}x", f"{head}.{secret[:-1]}"):
        for method in ("GET", "POST", "PUT"):
            assert requests.request(method, guess, timeout=30).status_code == 404
    base = waiting.resume.rpartition("/")[0]
    for odd in ("..%2F..%2Fstore.json", "a.b.c", "%00", "x" * 5000, "é.1.z", "last"):
        assert post(f"{base}/{odd}").status_code in {404, 400}
    assert waiting.answer() is None


def test_a_token_of_one_kind_opens_no_link_of_the_other(waiting):
    resume, cancel = (url.rpartition("/")[2] for url in (waiting.resume, waiting.cancel))
    base = f"{waiting.url}/cellrail"
    assert post(f"{base}/resume/{cancel}").status_code == 404
    assert post(f"{base}/cancel/{resume}").status_code == 404
    assert post(f"{base}/resume/{cancel}/cancel").status_code == 404
    assert waiting.answer() is None


def test_a_token_of_another_run_does_not_fit_this_one(waiting):
    head, _, secret = waiting.resume.rpartition(".")
    run_id = waiting.run_id
    other = run_id[:-1] + ("0" if run_id[-1] != "0" else "1")
    assert post(f"{head.replace(run_id, other)}.{secret}").status_code == 404


def test_an_expired_token_is_too_late_also_where_nobody_has_noticed_yet(waiting, monkeypatch):
    from cellrail.app.base import AppBase

    begun = AppBase.__init__

    def later(self: Any, *given: Any, **options: Any) -> None:
        begun(self, *given, **options)
        now = self.clock
        self.clock = lambda: now() + 2 * 86400

    monkeypatch.setattr(AppBase, "__init__", later)
    assert requests.get(waiting.resume, timeout=30).status_code == 410
    late = post(waiting.resume)
    assert late.status_code == 409
    assert waiting.answer().by == "timeout"


def test_no_token_of_a_link_stands_in_a_log(waiting, capfd, caplog):
    secret = waiting.resume.rpartition(".")[2]
    requests.get(waiting.resume, timeout=30)
    post(waiting.resume, data="{", headers={"Content-Type": "application/json"})
    post(waiting.resume)
    post(waiting.resume)
    logged = "".join(capfd.readouterr()) + caplog.text
    assert "[secret]" in logged
    assert secret not in logged


# --- logins ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/runs", "/runs/last", "/triggers", "/backfills", "/openapi.json"]
)
def test_the_api_tells_nothing_without_a_login(served, path):
    url = f"{served.url}/cellrail/api/v1{path}"
    for headers in ({}, {"Authorization": "token wrong"}, {"Authorization": TOKEN}):
        assert requests.get(url, headers=headers, timeout=30).status_code == 401


def test_nothing_of_jupyter_is_served_beside_the_login(served):
    for path in (
        "/api/contents",
        "/api/kernels",
        "/api/terminals",
        "/files/flow.ipynb",
        "/files/.cellrail/store.json",
        "/nbconvert/html/flow.ipynb",
        "/view/flow.ipynb",
    ):
        found = requests.get(served.url + path, headers=served.login, timeout=30)
        assert found.status_code == 404, path
    started = requests.post(f"{served.url}/api/kernels", headers=served.login, timeout=30)
    assert started.status_code in {403, 404, 405}


def test_a_person_who_has_logged_in_needs_xsrfs_header_too(served, make):
    make("x = 1")
    session = requests.Session()
    login = session.get(f"{served.url}/login?token={TOKEN}", timeout=30)
    assert login.status_code in {200, 404}
    url = f"{served.url}/cellrail/api/v1/runs"
    assert session.get(url, timeout=30).status_code == 200
    body = {"notebook": "flow.ipynb"}
    assert session.post(url, json=body, timeout=30).status_code == 403
    forged = {"Content-Type": "text/plain", "Origin": "https://evil.test"}
    assert session.post(url, data=json.dumps(body), headers=forged, timeout=30).status_code in {
        403,
        404,
    }
    assert served.tasks == []
    xsrf = {"X-XSRFToken": session.cookies["_xsrf"]}
    assert session.post(url, json=body, headers=xsrf, timeout=30).status_code == 202
    crossed = {**xsrf, "Origin": "https://evil.test"}
    assert session.post(url, json=body, headers=crossed, timeout=30).status_code in {403, 404}


def test_a_host_that_is_not_ours_is_refused(served):
    rebound = {**served.login, "Host": "evil.test"}
    assert served.get("/runs", headers=rebound).status_code == 403
    link = requests.get(
        f"{served.url}/cellrail/resume/a.b.c", headers={"Host": "evil.test"}, timeout=30
    )
    assert link.status_code == 403


def test_the_host_that_people_reach_it_by_is_one_of_ours(serve):
    served = serve(url="https://flows.example.org/cellrail")
    named = {**served.login, "Host": "flows.example.org"}
    assert served.get("/runs", headers=named).status_code == 200
    assert served.app.store.served() == "https://flows.example.org/cellrail"


def test_it_listens_on_loopback_alone(served):
    addresses = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None)}
    for address in addresses - {"127.0.0.1", "::1", "127.0.1.1"}:
        with pytest.raises(OSError, match=r"refused|timed out|unreachable"):
            socket.create_connection((address, urlsplit(served.url).port), timeout=2)


# --- names and bodies ------------------------------------------------------------------------

NAMES = [
    "../flow.ipynb", "a/../../flow.ipynb", "/etc/passwd.ipynb", "//flow.ipynb", "./flow.ipynb",
    ".cellrail/backfills/x.ipynb", "a/.hidden/flow.ipynb", "a\\..\\flow.ipynb", "C:/flow.ipynb",
    "flow.ipynb\u0000", "flow.ipynb/", "flow.ipynb/.", "~/flow.ipynb", "flow.py", "", " ",
    "x" * 300 + ".ipynb", "%2e%2e/flow.ipynb", "..%2fflow.ipynb", "linked.ipynb", "out/flow.ipynb",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_leads_elsewhere_starts_nothing(served, make, tmp_path_factory, name):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    outside = make("x = 1").rename(elsewhere / "flow.ipynb")
    (served.folder / "linked.ipynb").symlink_to(outside)
    (served.folder / "out").symlink_to(elsewhere)
    (served.folder / "a").mkdir()
    refused = [
        served.post("/runs", json={"notebook": name}),
        served.post("/triggers", json={"notebook": name, "cron": "@daily"}),
        served.post("/backfills", json={"notebook": name, "start": "2025-01-01", "every": "day"}),
        served.get("/runs", params={"notebook": name}),
        served.get("/triggers", params={"notebook": name}),
    ]
    assert {found.status_code for found in refused} <= {404, 422}
    assert served.tasks == []
    assert [path.name for path in elsewhere.iterdir()] == ["flow.ipynb"]


@pytest.mark.parametrize("namespace", ["..", "a..b", ".", "a/b", "a%2fb", "/etc", "\u0000", ".a"])
def test_kestras_names_lead_nowhere_else(served, namespace):
    body = {
        "namespace": namespace, "flowId": "flow", "triggerId": "t",
        "backfill": {"start": "2025-01-01"},
    }  # fmt: skip
    found = requests.put(
        f"{served.url}/api/v1/triggers", json=body, headers=served.login, timeout=30
    )
    assert found.status_code in {404, 422}


@pytest.mark.parametrize(
    "address", ["..", "../x", "%2e%2e", "a%2fb", "flow.ipynb", "%00", "x" * 99]
)
def test_an_address_of_a_run_names_no_file(served, make, address):
    make("x = 1")
    assert served.get(f"/runs/{address}").status_code in {400, 404, 405}
    assert served.get(f"/runs/{quote(address)}/journal").status_code in {400, 404}


def test_a_body_that_is_too_large_is_refused_and_nothing_kept_of_it(waiting):
    large = b'{"x": "' + b"y" * (2 * BIG) + b'"}'
    kind = {"Content-Type": "application/json"}
    assert post(waiting.resume, data=large, headers=kind).status_code == 413
    assert waiting.post("/runs", data=large, headers=kind).status_code == 413

    def in_parts() -> Any:
        for _ in range(20):
            yield b"y" * (BIG // 8)

    assert waiting.post("/runs", data=in_parts(), headers=kind).status_code == 413
    assert post(waiting.resume, data=in_parts(), headers=kind).status_code == 413
    assert waiting.answer() is None


MALFORMED = [
    b"{", b"[1,", b"\xff\xfe", b'"\\ud800', b"nan", b"{'a': 1}", b"\x00", b'{"notebook": 1e999}',
    b"[" * 100_000, b'{"a":' * 50_000,
]  # fmt: skip


@pytest.mark.parametrize("body", MALFORMED, ids=range(len(MALFORMED)))
def test_a_malformed_body_is_told_to_be_that(waiting, body):
    kind = {"Content-Type": "application/json"}
    for found in (
        waiting.post("/runs", data=body, headers=kind),
        waiting.post(f"/runs/{waiting.run_id}/restart", data=body, headers=kind),
        post(waiting.resume, data=body, headers=kind),
    ):
        assert found.status_code in {400, 422}
        assert found.json()["error"]["message"]
    assert waiting.answer() is None


@pytest.mark.parametrize(
    "body",
    [{"notebook": "flow.ipynb", "unknown": 1}, {"notebook": 7}, {}, [], None, "x",
     {"notebook": "flow.ipynb", "parameters": {"day": 1}},
     {"notebook": "flow.ipynb", "parameters": {"x": {"$date": "never"}}},
     {"notebook": "flow.ipynb", "timeout": -1}, {"notebook": "flow.ipynb", "to": "nowhere"}],
    ids=str,
)  # fmt: skip
def test_a_wrong_body_is_told_what_is_wrong_and_starts_nothing(served, make, body):
    make("x = 1", tags={1: ["parameters"]})
    found = (
        served.post("/runs", json=body) if body is not None else served.post("/runs", data="null")
    )
    assert found.status_code in {404, 422}
    assert found.json()["error"]["code"]
    assert served.tasks == []


def test_an_error_of_ours_tells_a_stranger_nothing_of_the_machine(served, monkeypatch):
    from cellrail.app import App

    def broken(*given: Any, **options: Any) -> None:
        raise RuntimeError(f"in {served.folder}")

    monkeypatch.setattr(App, "runs", broken)
    found = served.get("/runs")
    assert found.status_code == 500
    assert str(served.folder) not in found.text
    assert "Traceback" not in found.text
