"""What cells ask of resources and variables, and where the secrets among them are not."""

from __future__ import annotations

from reading import printed

IMPORT = "from cellrail import flow, get_state, set_state, get_state_path\n"
USER = "from cellrail import get_flow_user_state as get, set_flow_user_state as put\n"
RESOURCE = "from cellrail import get_resource, set_resource\n"
VARIABLE = "from cellrail import get_variable, set_variable\n"


def test_what_is_no_json_missing_or_of_another_type_is_refused_where_it_is_asked_for(make, app):
    app.resource_set("f/database", {"host": "a"}, resource_type="postgres")
    run = app.run(
        make(
            IMPORT + RESOURCE + VARIABLE + USER + "def tried(call):\n"
            "    try:\n        call()\n"
            "    except Exception as error:\n"
            "        print(type(error).__name__, isinstance(error, (KeyError, TypeError)), error)",
            "%%step all\nimport math, numpy\n"
            "tried(lambda: get_resource('f/databse'))\n"
            "tried(lambda: get_variable('nix'))\n"
            "tried(lambda: set_state({'x': {1, 2}}))\n"
            "tried(lambda: put('k', numpy.int64(3)))\n"
            "tried(lambda: set_resource(math.nan, 'f/x'))\n"
            "tried(lambda: set_resource({}, 'f/database', resource_type='mysql'))\n"
            "tried(lambda: set_variable('v', 3))\n"
            "tried(lambda: get_resource(' '))\n"
            "print(get_resource('nix', default=None), get_variable('nix', default='d'))\n"
            "set_resource({'host': 'b'}, 'f/database')\nset_resource([1], None)\n"
            "print(get_state())",
        )
    )
    assert run.status == "success", run.cause
    assert printed(run, "all").splitlines() == [
        "NotSet True there is no resource 'f/databse'; did you mean 'f/database'?",
        "NotSet True there is no variable 'nix'",
        "NotJson True set_state(): ['x'] is a set, which is no JSON (keep numbers, strings, lists, "
        "and dictionaries with string keys)",
        "NotJson True set_flow_user_state('k'): the value is a numpy int64, which is no JSON (keep "
        "numbers, strings, lists, and dictionaries with string keys)",
        "NotJson True set_resource(): the value is nan, which is no JSON (keep numbers, strings, "
        "lists, and dictionaries with string keys)",
        "BadState False the resource 'f/database' was created with the type 'postgres', not "
        "'mysql' (leave the type out, or use another path)",
        "BadState False set_variable('v'): a variable is a string, not a int",
        "BadState False ' ' is no path of a resource or variable (f/db/main is one)",
        "None d",
        "[1]",
    ]
    assert app.resource_get("f/database") == {"host": "b"}


def test_user_threads_ask_and_forked_processes_are_told_that_they_cannot(make, app):
    run = app.run(
        make(
            USER + "import threading, os",
            "%%step many\n"
            "threads = [threading.Thread(target=put, args=(f'k{n}', n)) for n in range(20)]\n"
            "[t.start() for t in threads]; [t.join() for t in threads]\n"
            "print(sum(get(f'k{n}') for n in range(20)))",
            "%%step forked\nread, write = os.pipe()\npid = os.fork()\n"
            "if not pid:\n"
            "    try:\n        get('k1')\n"
            "    except BaseException as error:\n        os.write(write, str(error).encode())\n"
            "    os._exit(0)\n"
            "os.waitpid(pid, 0); print(os.read(read, 100).decode()[:28]); print(get('k2'))",
            "%%step condition --when put('x', 1) is None\npass",
        )
    )
    assert printed(run, "many") == "190\n"
    assert printed(run, "forked") == "a forked process cannot ask \n2\n"
    assert run.status == "failed"
    assert "set_flow_user_state() is for the cell of a step" in run.cause


def test_no_content_of_the_store_holds_a_secret_variable(
    make, app, tmp_path, cellrail, everything, disguises
):
    secret, later = "s3cr3t-horse-battery", 'second "sécret" of it'
    app.variable_set("db/password", secret, secret=True)
    path = make(
        VARIABLE + USER + RESOURCE + "import sys, os",
        "%%step read\npassword = get_variable('db/password')\nprint('with', password)\n"
        "print(password, file=sys.stderr)\n[password]",
        "nested = {'a': [1, (password,)]}\nos.environ['WORD'] = password\nraw = password.encode()",
        "%%step new\nset_variable('db/later', open('later').read(), secret=True)\n"
        "print(get_variable('db/later'))\nfrom cellrail import flow\n"
        "(flow.shared / 'f.txt').write_text(password)\n"
        "(flow.shared / 'g.txt').write_text('fine')\n"
        "print(flow.once('k', lambda: {'token': password}))",
        "%%step refused\n"
        "for call in (lambda: put('k', {'p': password}), lambda: set_resource([password], 'x'),\n"
        "             lambda: set_variable('plain', password)):\n"
        "    try:\n        call()\n    except ValueError as error:\n        print(error)",
        "raise ValueError('refused: ' + password)",
    )
    (tmp_path / "later").write_text(later)
    run = app.run(path, tmp_path / "out.ipynb")
    assert run.status == "failed"
    assert printed(run, "read") == "with ***\n***\n"
    assert printed(run, "refused").count("holds a secret of this run") == 3
    assert app.variable_get("db/later") == later
    again = app.restart(run.id, from_step="new", state="current", force=True)
    assert "'token': '***'" in printed(again, "new")
    exported = [app.export(run.id, tmp_path / f"export.{kind}") for kind in ("ipynb", "html")]
    texts = [path.read_bytes() for path in (tmp_path / "out.ipynb", *exported)]
    shared = app.store.path / "shared"
    kept = [(where, data) for where, data in everything(app) if str(shared) not in where]
    for word in (secret, later):
        found = {where for where, data in kept for way in disguises(word) if way in data}
        assert not found
        assert not any(word.encode() in text for text in texts)
    assert any(b"refused: " in data for _, data in everything(app))
    said = cellrail("variable", "list")
    assert secret not in said.stdout + said.stderr
    assert "***" in said.stdout
