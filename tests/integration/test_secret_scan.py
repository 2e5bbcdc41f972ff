"""No secret is in the store, however deep one digs.

Small objects lie in the journals in base64 and the catalog may compress its columns, so a search of
the files alone finds too little: every object is read, and every cell of every table.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

from cellrail import App
from cellrail_state.doctor import references
from cellrail_state.ingest import TABLES

SECRET = "s3cr3t-horse-battery"


def everything(app: App) -> Iterator[tuple[str, bytes]]:
    """Every piece of content that the store holds, and where."""
    store = app.store
    for path in store.path.rglob("*"):
        if path.is_file():
            yield str(path), path.read_bytes()
    for run_id in store.run_ids():
        for record in store.records(run_id):
            for ref in references(record):
                yield f"an object of {run_id}: {type(record).__name__}", store.objects.get(ref)
    for table in TABLES:
        for row in store.catalog.query(f"SELECT * FROM {table}"):
            yield table, repr(row).encode()


def disguises(secret: str) -> list[bytes]:
    """How a text may lie in a file."""
    plain = secret.encode()
    base64s = [base64.b64encode(b"\0" * lead + plain)[4:-4] for lead in range(3)]
    return [plain, secret.encode("utf-16-le"), plain[::-1], plain.hex().encode(), *base64s]


def test_no_content_of_the_store_holds_a_secret(make, app):
    run = app.run(
        make(
            "password = 'unset-default'  # secret",
            "import sys\nprint('with', password)\nprint(password, file=sys.stderr)\n[password]",
            "nested = {'a': [1, (password,)]}\nlonger = f'https://me:{password}@host/'",
            "raw = password.encode()\nletters = set([password])\nalias = password",
            "def ask(word=password):\n    return word\nclass Client:\n    key = password",
            "import warnings\nwarnings.warn(password)",
            "raise ValueError('refused: ' + password)",
            tags={1: ["parameters"]},
        ),
        parameters={"password": SECRET},
    )
    assert run.status == "failed"
    assert app.sql("SELECT count(*) AS n FROM jobs")[0]["n"] > 5
    found = {where for where, data in everything(app) for way in disguises(SECRET) if way in data}
    assert not found
    # the search finds what is there: the same words where they are no secret
    assert any(b"refused: " in data for _, data in everything(app))
    assert "***" in json.dumps(run["#2"].outputs)
