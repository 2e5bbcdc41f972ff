"""Laws of laying a checkpoint over a living namespace.

* the names of a kept job get its values, sharing what they shared; all else stays the very object;
* what is gone is removed; what cannot be stored and is alive stays;
* definitions that live stay the same objects; kept ones see the live globals, and keep their state;
* a large value waits until a cell can reach it;
* what is captured next is only what the next cell changed, and restores in a fresh kernel.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from cellrail.run import shellspace
from cellrail.run.shellstate import ShellState
from cellrail_state import ambient
from cellrail_state.laying import laid
from cellrail_state.model import (
    Checkpoint,
    Component,
    Delta,
    ObjectRef,
    Variable,
    Verdict,
    to_plain,
)
from cellrail_state.objects import Objects
from cellrail_state.restore import restore

REF = ObjectRef(digest="0" * 64, size=1)


class Kernel:
    """A shell with captures after each cell."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self.shell: Any = InteractiveShell()
        self.shell.user_ns["__name__"] = "__main__"
        self.state = ShellState(self.shell, objects, base=ambient.Base.now())
        self.chain: list[Delta] = []

    def cell(self, source: str) -> Delta:
        result = self.shell.run_cell(source, store_history=True)
        result.raise_error()
        delta = self.state.delta()
        assert not delta.failure
        self.chain.append(delta)
        return delta

    def lay(self, delta: Delta, **order: Any) -> dict[str, Any]:
        self.chain.append(delta)
        target = Checkpoint.fold(self.chain)
        told = {"magics": [], "inputs": {}, "execution_count": len(self.chain) + 1, **order}
        return self.state.carry_out(
            {"command": "lay over", "checkpoint": to_plain(target), "python": "", **told}
        )

    def reserve(self, chain: list[Delta]) -> None:
        keys = [k for d in chain for c in d.components.values() for k in c.definitions]
        self.state.carry_out({"command": "reserve", "keys": keys})

    @property
    def ns(self) -> dict[str, Any]:
        space: dict[str, Any] = self.shell.user_ns
        return space

    def restored(self) -> dict[str, Any]:
        """The namespace that a restart right now would find."""
        ns: dict[str, Any] = {"__name__": "__main__"}
        report = restore(Checkpoint.fold(self.chain), ns, self.objects)
        assert not report.failed
        return ns


@pytest.fixture
def kernels(tmp_path: Path) -> Iterator[tuple[Kernel, Kernel]]:
    """An origin, and a kernel that keeps steps of it."""
    generators = random.getstate()
    objects = Objects(tmp_path / "objects")
    yield Kernel(objects), Kernel(objects)
    random.setstate(generators)


def test_names_of_a_kept_job_get_its_values_and_everything_else_stays(
    kernels: tuple[Kernel, Kernel],
) -> None:
    origin, again = kernels
    origin.cell("a = 1\nmine = [0]")
    kept = origin.cell("b = [1, 2]\nboth = (b, b)\nc = {'b': b}")

    again.cell("a = 2\nmine = [0, 1]\nlock = __import__('threading').Lock()\nc = 'old'")
    lock, mine = again.ns["lock"], again.ns["mine"]
    again.lay(laid(Checkpoint.fold(again.chain), Checkpoint.fold(origin.chain[:1]), kept))

    assert (again.ns["a"], again.ns["b"]) == (2, [1, 2])
    assert again.ns["both"][0] is again.ns["c"]["b"] is again.ns["b"]
    assert again.ns["lock"] is lock
    assert again.ns["mine"] is mine

    delta = again.cell("b.append(3)")
    assert set(delta.written) >= {"b", "both", "c"}
    assert "a" not in delta.written
    assert "mine" not in delta.written
    later = again.restored()
    assert later["c"]["b"] is later["b"] == [1, 2, 3]
    assert later["mine"] == [0, 1]


def test_nothing_is_captured_again_that_was_laid_over(kernels: tuple[Kernel, Kernel]) -> None:
    origin, again = kernels
    kept = origin.cell("def f(x):\n    return x + k\nk = 1\nd = {'f': f}\nbig = list(range(9999))")
    again.reserve(origin.chain)
    again.lay(kept)

    assert again.ns["d"]["f"] is again.ns["f"]
    delta = again.cell("k = 5\nr = f(1)")

    assert again.ns["r"] == 6
    assert set(delta.written) == {"k", "r"}


def test_names_that_a_kept_job_deleted_are_removed(kernels: tuple[Kernel, Kernel]) -> None:
    origin, again = kernels
    first = origin.cell("a = 1\nb = 2")
    kept = origin.cell("del b\nc = a")
    again.lay(first)
    again.cell("a = 7")
    again.lay(laid(Checkpoint.fold(again.chain), Checkpoint.fold(origin.chain[:1]), kept))

    assert "b" not in again.ns
    assert again.ns["c"] == 1
    assert "b" not in again.restored()


def test_definitions_of_both_sides_live_together(kernels: tuple[Kernel, Kernel]) -> None:
    origin, again = kernels
    first = origin.cell("def old(x):\n    return x + 1\npair = [lambda: 'one']")
    kept = origin.cell("def kept(x):\n    return old(x) * 10\nsaid = [lambda: 'two']")
    again.reserve(origin.chain)
    again.cell("def old(x):\n    return x + 2\npair = [lambda: 'new', lambda: 'newer']")
    old = again.ns["old"]

    again.lay(laid(Checkpoint.fold(again.chain), first_of(origin), kept))
    assert first is origin.chain[0]
    assert again.ns["old"] is old
    assert again.ns["kept"](1) == 30
    assert again.ns["said"][0]() == "two"
    assert [f() for f in again.ns["pair"]] == ["new", "newer"]

    restored = again.restored()
    assert restored["kept"](1) == 30
    assert restored["said"][0]() == "two"
    again.cell("x = kept(1), said[0](), pair[0]()")
    restored = again.restored()
    assert restored["x"] == (30, "two", "new")
    assert restored["kept"](1) == 30
    assert restored["pair"][1]() == "newer"


def test_the_state_of_a_closure_that_lives_is_the_kept_jobs(
    kernels: tuple[Kernel, Kernel],
) -> None:
    origin, again = kernels
    first = origin.cell(
        "def counter():\n    n = 0\n    def up():\n        nonlocal n\n        n += 1\n"
        "        return n\n    return up\nup = counter()\nclass P:\n    made = 0"
    )
    kept = origin.cell("up(); up(); P.made = 7; p = P()")
    again.reserve(origin.chain)
    again.lay(first)
    up, kind = again.ns["up"], again.ns["P"]
    again.cell("z = 1")

    again.lay(laid(Checkpoint.fold(again.chain), first_of(origin), kept))

    assert again.ns["up"] is up
    assert up() == 3
    assert kind.made == 7
    assert type(again.ns["p"]) is kind


def test_a_large_value_waits_until_a_cell_can_reach_it(kernels: tuple[Kernel, Kernel]) -> None:
    origin, again = kernels
    kept = origin.cell("big = list(range(20000))\nsmall = 1")
    again.cell("big = None")

    answer = again.lay(kept, lazy_above=1000)

    assert answer["waiting"] == ["big"]
    assert "big" not in again.ns
    assert again.ns["small"] == 1
    again.cell("other = 1")
    assert again.restored()["big"][-1] == 19999
    again.state.bring({"big"})
    assert again.ns["big"][-1] == 19999
    assert again.cell("x = big[0]").written == ("x",)


def test_generators_and_history_are_the_kept_jobs(kernels: tuple[Kernel, Kernel]) -> None:
    origin, again = kernels
    kept = origin.cell("import random\nrandom.seed(3)\nfirst = random.random()\n41")
    following = origin.cell("second = random.random()")
    assert following.written
    random.seed(99)
    again.cell("a = 1")

    again.lay(kept, inputs={"1": "kept source"}, execution_count=2)
    again.cell("second = random.random()\n_")

    assert again.ns["second"] == origin.ns["second"]
    assert again.ns["In"][1] == "kept source"
    assert shellspace.capture_roots(again.shell)["Out[1]"] == 41
    assert again.ns["_2"] == 41


def first_of(origin: Kernel) -> Checkpoint:
    return Checkpoint.fold(origin.chain[:1])


@pytest.mark.parametrize("seed", range(20))
def test_a_fold_is_one_checkpoint_after_the_other(seed: int) -> None:
    draw = random.Random(seed)
    deltas = []
    for place in range(8):
        name = draw.choice("xyz")
        held = Component(id=f"c{place}", names=(name,), codec="pickle/1", stream=REF)
        components = {held.id: held}
        if draw.random() < 0.5:
            keys = (f"f#{place}",)
            definitions = Component(
                id=f"d{place}", names=(), codec="pickle/1", stream=REF, definitions=keys
            )
            components[definitions.id] = definitions
        deltas.append(
            Delta(
                components=components,
                variables={name: Variable(name=name, verdict=Verdict.STORED, component=held.id)},
                deleted=(draw.choice("xyz".replace(name, "")),) if draw.random() < 0.3 else (),
                ambient=REF if draw.random() < 0.3 else None,
                beside=draw.random() < 0.5,
            )
        )
    whole = Checkpoint()
    for delta in deltas:
        whole = whole.after(delta)

    def definitions(checkpoint: Checkpoint) -> list[str]:
        return [ident for ident in checkpoint.components if ident.startswith("d")]

    assert Checkpoint.fold(deltas) == whole
    assert definitions(Checkpoint.fold(deltas)) == definitions(whole)
    assert Checkpoint.fold(deltas[4:], before=Checkpoint.fold(deltas[:4])) == whole
