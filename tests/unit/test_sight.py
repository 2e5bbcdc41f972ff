"""What is seen of values that cannot be stored.

Laws: what a checkpoint would hold of a value if nothing in it refused to be stored is seen, and
whether a lock is held, how far a file or an iterator is; looking changes nothing that is seen, and
what a library's object does with itself is not seen.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from cellrail_state.capture import Capture, Limits
from memory import Memory

HEAD = """
import collections, contextvars, functools, itertools, logging, queue, socket, sqlite3
import subprocess, tempfile, threading, time, types, weakref
import numpy as np, pandas as pd
class Own:
    def __init__(self, **held): vars(self).update(held)
    def look(self): return self.n
    def bump(self): self.n += 1
    @property
    def asked(self): self.bump()
    def __eq__(self, other): self.bump()
    def __bool__(self): self.bump(); return True
    def __contains__(self, item): self.bump()
    def __iter__(self): self.bump(); return iter(())
class Slim:
    __slots__ = ("n", "lock")
class Table(dict): pass
class Base(sqlite3.Connection): pass
class Worker(threading.Thread):
    n = 0
class Shared:
    lock, n, seen = threading.Lock(), 0, []
class Closed(list):
    def __reduce__(self): raise TypeError
def counting(n=0):
    while True:
        n += 1
        yield n
def popping(rows):
    while True:
        yield rows.pop()
def waiting():
    yield from (n for n in [1, 2, 3])
def over_a_lock():
    lock, seen, n = threading.Lock(), {}, 0
    def ask(key):
        nonlocal n
        if key is None: n += 1
        return lock.locked(), (seen.setdefault(key, 1) if key else 0)
    return ask
def started(generator):
    next(generator)
    return generator
def ended(process):
    process.wait() if isinstance(process, subprocess.Popen) else (process.start(), process.join())
    return process
lock = threading.Lock()
"""

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """What an example has opened is closed with it, and not within another test."""
    yield
    gc.collect()


def seen_around(made: str, act: str, **options: Any) -> tuple[Any, Any]:
    """What is seen of `c` (and `t`, which it may be about) before and after something."""
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(HEAD + made, "<cell>", "exec", dont_inherit=True), space)
    names = {"c", "t"} & space.keys()
    capture = Capture(Memory(), globals=space, **options)  # type: ignore[arg-type]
    roots = {name: space[name] for name in names}
    before = capture.seen(roots, names)
    exec(act, space)
    return before, capture.seen({name: space[name] for name in names}, names)


OWN = "c = Own(n=0, lock=threading.Lock(), rows=[1], told={'a': 1})"


@pytest.mark.parametrize(
    ("made", "act"),
    [
        (OWN, "c.bump()"),
        (OWN, "c.lock.acquire()"),
        (OWN, "delattr(c, 'n')"),
        (OWN, "vars(c).update(n=1)"),
        (OWN, "c.asked"),
        (OWN, "c == 1"),
        (OWN, "bool(c)"),
        (OWN, "1 in c"),
        (OWN, "[*c]"),
        (OWN, "c.rows.pop()"),
        (OWN, "c.told['b'] = 1"),
        ("c = Own(lock=threading.RLock())", "c.lock.acquire()"),
        ("c = Own(n=0, file=open(__import__('os').devnull))", "c.bump()"),
        ("c = Own(file=tempfile.TemporaryFile())", "c.file.write(b'x')"),
        ("c = Own(file=tempfile.NamedTemporaryFile())", "c.file.write(b'x')"),
        ("c = Own(n=0, db=sqlite3.connect(':memory:'))", "c.bump()"),
        (
            "c = Own(db=sqlite3.connect(':memory:'))\nc.db.execute('create table t (a)')",
            "c.db.execute('insert into t values (1)')",
        ),
        ("c = Base(':memory:')", "c.n = 1"),
        ("c = Own(n=0, gen=counting())", "c.bump()"),
        ("c = Own(gen=started(counting()))", "next(c.gen)"),
        ("c = Own(gen=started(popping([1, 2])))", "next(c.gen)"),
        ("c = started(waiting())", "next(c)"),
        ("c = map(str, counting())", "next(c)"),
        ("c = itertools.chain(waiting(), [4])", "next(c)"),
        ("c = Own(n=0, ends=socket.socketpair())", "c.bump()"),
        ("c = Own(ends=socket.socketpair())", "c.ends[0].close()"),
        ("c = Own(n=0, thread=ended(threading.Thread(target=len, args=('',))))", "c.bump()"),
        ("c = Worker()", "c.n += 1"),
        ("c = Own(n=0, module=types.ModuleType('made'))", "c.module.n = 1"),
        ("c = over_a_lock()", "c('a')"),
        ("c = over_a_lock()", "c(None)"),
        ("c = Own(ask=over_a_lock())", "c.ask('a')"),
        ("t = Own(n=0, lock=lock)\nc = Own(ref=weakref.ref(t, print))", "c.ref().bump()"),
        ("t = Own(n=0)\nc = weakref.proxy(t)", "c.bump()"),
        ("c = [lock, {'a': 1}]", "c[1].pop('a')"),
        ("c = [lock, {'a': 1}]", "c[0].acquire()"),
        ("c = collections.defaultdict(list, lock=lock)", "c['new']"),
        ("c = Own(deep=Own(deeper=Own(n=0, lock=lock)))", "c.deep.deeper.bump()"),
        ("c = Own(deep=Own(deeper=Own(n=0, lock=lock)))", "c.deep.deeper.lock.acquire()"),
        ("c = Shared()", "Shared.n += 1"),
        ("c = Shared()", "c.seen.append(1)"),
        ("c = Shared()", "c.lock.acquire()"),
        ("c = types.SimpleNamespace(n=0, lock=lock)", "c.n = 1"),
        ("c = queue.Queue()\nc.put([1])", "c.queue[0].append(2)"),
        ("c = queue.SimpleQueue()\nc.put(1)", "c.get()"),
        ("c = Own(event=threading.Event())", "c.event.set()"),
        ("c = threading.local()\nc.n = 0", "c.n = 1"),
        ("c = contextvars.ContextVar('n', default=0)", "c.set(1)"),
        ("c = functools.partial(len, lock, [])", "c.args[1].append(1)"),
        ("c = Slim()\nc.n, c.lock = 0, lock", "c.n = 1"),
        ("c = Table(a=1, lock=lock)", "c.pop('a')"),
        ("c = Closed([1])", "c.append(2)"),
        ("c = Own(lock=lock, rng=np.random.default_rng(1))", "c.rng.random()"),
        ("c = Own(lock=lock, df=pd.DataFrame({'a': range(9_000)}))", "c.df.iloc[5, 0] = 0"),
    ],
)  # fmt: skip
def test_a_change_beside_what_cannot_be_stored_is_seen(made: str, act: str) -> None:
    before, after = seen_around(made, act)
    assert None not in before.values()
    assert before != after


@pytest.mark.parametrize(
    ("made", "act"),
    [
        (OWN, "c.look(), c.lock.locked(), c.told.get('b'), len(c.rows)"),
        (OWN, "c.lock.acquire(), c.lock.release()"),
        ("c = Own(file=tempfile.TemporaryFile())", "c.file.tell(), c.file.closed"),
        ("c = Own(db=sqlite3.connect(':memory:'))", "c.db.execute('select 1').fetchall()"),
        ("c = Own(gen=started(counting()))", "c.gen.gi_frame.f_locals"),
        ("c = Own(ends=socket.socketpair())", "c.ends[0].fileno(), c.ends[0].getsockname()"),
        ("c = Own(thread=ended(threading.Thread(target=len, args=('',))))", "c.thread.is_alive()"),
        ("c = Worker()\nc.start()\ntime.sleep(0.05)", "c.is_alive()"),
        ("c = Own(process=subprocess.Popen(['true']))", "c.process.wait()"),
        ("c = Own(module=types.ModuleType('made'))", "c.module.__name__"),
        ("c = over_a_lock()", "c('')"),
        ("t = Own(n=0, lock=lock)\nc = Own(ref=weakref.ref(t, print))", "c.ref().look()"),
        ("t = Own(n=0)\nc = weakref.proxy(t)", "c.look()"),
        ("c = [lock, {'a': 1}]", "c[1].setdefault('a', 2), c[0].locked()"),
        ("c = Own(deep=Own(deeper=Own(n=0, lock=lock)))", "c.deep.deeper.look()"),
        ("c = Shared()", "c.n, len(c.seen), c.lock.locked()"),
        ("c = queue.Queue()\nc.put(1)", "c.empty(), c.qsize()"),
        ("c = threading.local()\nc.n = 0", "c.n, hasattr(c, 'm')"),
        ("c = contextvars.ContextVar('n', default=0)", "c.get()"),
        ("c = Own(lock=lock, log=logging.getLogger('own'))", "c.log.debug('told')"),
        ("c = Own(lock=lock, df=pd.DataFrame({'a': [1, 2]}))", "c.df.groupby('a').size(), c.df.a"),
        ("c = Own(lock=lock)\nc.me = c\nc.gen = (c for _ in 'ab')", "c.me.me"),
    ],
)
def test_a_look_at_what_cannot_be_stored_is_none(made: str, act: str) -> None:
    before, after = seen_around(made, act)
    assert None not in before.values()
    assert before == after


def test_nothing_is_told_of_what_is_over_a_limit() -> None:
    made = "c = Own(lock=lock, rows=b'x' * 10_000)"
    before, _ = seen_around(made, "pass", limits=Limits(max_value=1_000))
    assert before["c"] is None


def test_a_secret_is_compared_as_anything_else() -> None:
    before, after = seen_around(
        "c = ['hunter2-hunter2']", "c.append(1)", secrets=["hunter2-hunter2"]
    )
    assert before["c"] is not None
    assert before != after
