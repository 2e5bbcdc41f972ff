"""Links of waits: a GET answers nothing, a POST answers once, a token is good for one thing."""

from __future__ import annotations

import json
from typing import Any

import requests


def post(url: str, **options: Any) -> requests.Response:
    return requests.post(url, timeout=30, **options)


def test_a_get_shows_a_page_with_two_buttons_and_answers_nothing(waiting):
    for method in ("GET", "HEAD", "GET"):
        shown = requests.request(method, waiting.resume, timeout=30)
        assert shown.status_code == 200
    assert shown.text.count("<button") == 2
    assert "flow.ipynb" in shown.text
    assert waiting.answer() is None
    assert waiting.status() == "suspended"
    assert waiting.tasks == []


def test_the_page_holds_no_script_goes_in_no_frame_and_tells_nobody_its_address(waiting):
    shown = requests.get(waiting.resume, timeout=30)
    policy = shown.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert shown.headers["Content-Type"] == "text/html; charset=UTF-8"
    assert shown.headers["Referrer-Policy"] == "no-referrer"
    assert shown.headers["Cache-Control"] == "no-store"
    assert shown.headers["X-Content-Type-Options"] == "nosniff"
    assert "<script" not in shown.text


def test_a_post_with_json_resumes_once_and_the_second_is_told_who_was_first(waiting):
    first = post(waiting.resume, json={"by": "ann"})
    assert (first.status_code, first.json()["action"]) == (200, "resume")
    assert json.loads(waiting.answer().data) == {"by": "ann"}
    second = post(waiting.resume, json={"by": "bob"})
    assert second.status_code == 409
    assert "resumed by 127.0.0.1" in second.json()["error"]["message"]
    assert post(waiting.cancel).status_code == 409
    assert json.loads(waiting.answer().data) == {"by": "ann"}


def test_somebody_goes_on_with_an_answered_run_and_only_then(waiting):
    post(waiting.resume)
    for _ in range(200):
        if waiting.tasks:
            break
        waiting.extension._rounds._stopping.wait(0.02)
    (task,) = waiting.tasks
    assert (task.todo, task.run_id) == ("wake", waiting.run_id)


def test_a_put_an_empty_body_and_a_form_do_as_well(waiting):
    assert requests.put(waiting.resume, timeout=30).status_code == 200
    assert waiting.answer().data is None


def test_the_fields_of_a_form_are_the_data(waiting):
    assert post(waiting.resume, data={"by": "ann", "n": ["1", "2"]}).status_code == 200
    assert json.loads(waiting.answer().data) == {"by": "ann", "n": ["1", "2"]}


def test_the_pages_own_field_is_json(waiting):
    page = {"Accept": "text/html,*/*"}
    broken = post(waiting.resume, data={"_json": "{"}, headers=page)
    assert broken.status_code == 400
    done = post(waiting.resume, data={"_json": ' {"by": "ann"} '}, headers=page)
    assert done.status_code == 200
    assert "The run is resumed" in done.text
    assert json.loads(waiting.answer().data) == {"by": "ann"}
    gone = requests.get(waiting.resume, timeout=30)
    assert gone.status_code == 410
    assert "<button" not in gone.text


def test_the_second_button_cancels(waiting):
    done = post(f"{waiting.resume}/cancel", headers={"Accept": "text/html"})
    assert done.status_code == 200
    assert waiting.answer().by == "cancel"


def test_a_cell_is_told_of_the_request_but_not_of_anybodys_login(waiting):
    secret = {"Cookie": "c=secret", "Authorization": "token secret", "X-Job": "7"}
    post(waiting.resume + "?a=1&a=2", json=[1], headers=secret)
    told = json.loads(waiting.answer().request)
    assert (told["method"], told["body"], told["query"]) == ("POST", [1], {"a": ["1", "2"]})
    assert told["headers"]["X-Job"] == "7"
    assert "secret" not in json.dumps(told)


def test_a_body_that_is_neither_json_nor_a_form_is_refused_and_answers_nothing(waiting):
    kinds = {"Content-Type": "text/plain"}
    assert post(waiting.resume, data="yes", headers=kinds).status_code == 415
    assert (
        post(waiting.resume, data="{", headers={"Content-Type": "application/json"}).status_code
        == 400
    )
    assert waiting.answer() is None


def test_links_lead_to_the_server_that_serves_the_store(served):
    assert served.app.store.served() == f"{served.url}/cellrail"


def test_a_server_that_ends_takes_its_url_with_it(serve):
    served = serve()
    assert served.app.store.served()
    served.server.stop()
    for thread in __import__("threading").enumerate():
        if thread.name == "server of a test":
            thread.join(30)
    assert served.app.store.served() == ""
