"""No secret is in the store, however deep one digs.

Small objects lie in the journals in base64 and the catalog may compress its columns, so a search of
the files alone finds too little: every object is read, and every cell of every table.
"""

from __future__ import annotations

import json

SECRET = "s3cr3t-horse-battery"


def test_no_content_of_the_store_holds_a_secret(make, app, everything, disguises):
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
