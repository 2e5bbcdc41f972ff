"""Which environment variables code reads.

Laws: a variable that is named is told by its name; whatever may read another makes it any; code
that does not touch the environment reads none.
"""

from __future__ import annotations

import pytest

from cellrail.notebook.environs import environment_of


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("x = 1", set()),
        ("import os\nx = os.environ['REGION']", {"REGION"}),
        ("x = os.environ.get('REGION', other) or os.getenv('ZONE')", {"REGION", "ZONE"}),
        ("from os import environ, getenv\nx = environ['A'] + getenv('B')", {"A", "B"}),
        (
            "import os as system\nx = system.environ.get(key='A') if 'B' in system.environ else 0",
            None,
        ),
        ("if 'DEBUG' not in os.environ: pass", {"DEBUG"}),
        ("os.environ.setdefault('A', os.environ['B'])", {"A", "B"}),
        ("os.environ['A'] = '1'", {"A"}),
        ("def region():\n    return os.environ[b'A'.decode()]", None),
        ("def region():\n    return os.environ['A']", {"A"}),
        ("x = os.path.expandvars('$HOME/${DAY}.csv')", {"HOME", "DAY"}),
        ("x = os.path.expandvars(path)", None),
        ("%env REGION", {"REGION"}),
        ("%env", None),
        ("name = 'A'\nx = os.environ[name]", None),
        ("subprocess.run(['ls'], env={**os.environ, 'A': '1'})", None),
        ("for name in os.environ: pass", None),
        ("read = os.getenv", None),
        ("from os import environ as env\nx = env['A']", None),
        ("x = (", None),
    ],
)
def test_what_the_code_shows_is_told(code, names):
    assert environment_of(code) == (None if names is None else frozenset(names))
