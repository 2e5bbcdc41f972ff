"""Where a driver gets its kernels from: started cold, or forked from a warmed process.

A run that asks for a warm kernel gets a cold one where a fork would not be the same, and is told
why. Zygotes are kept while their driver lives, the few that were used last.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from string import Template
from typing import Any, ClassVar

import msgspec

from cellrail.kernels.ahead import shadows, site_folders, site_stamp
from cellrail.kernels.cold import ARGUMENTS, ColdKernel
from cellrail.kernels.forking import Blueprint, CannotFork, Zygote
from cellrail.kernels.kernel import Kernel
from cellrail.kernels.warm import WarmKernel

_LOGGER = logging.getLogger(__name__)
_HASH_SEED = "PYTHONHASHSEED"
_LAUNCHER = ["-m", "ipykernel_launcher"]
#: names that stand for the interpreter of the driver
_PYTHONS = ("python", f"python{sys.version_info[0]}", "python{}.{}".format(*sys.version_info))
_KEPT = 4
#: how a kernel can start
KINDS = ("cold", "warm")
CAN_FORK = sys.platform.startswith("linux")

Stamp = tuple[tuple[str, int], ...]


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A kernel that a run wants."""

    name: str
    cwd: Path
    #: variables added to the driver's own
    environment: dict[str, str]
    #: the seed of string hashes; None for any that Python chooses
    hash_seed: int | None = None
    #: whether another seed does as well: nothing was made with this one
    any_seed: bool = False
    #: a seed that may not come again: a process to fork from is made when it does
    lone_seed: bool = False
    #: modules that the notebook imports before anything else
    imports: tuple[str, ...] = ()
    #: called where a process to fork from has been started, and has to be waited for
    meanwhile: Callable[[], object] = lambda: None
    #: those that `wait_ready_alike` tells its hooks
    settings: dict[str, Any] = {}


class Supplied(msgspec.Struct, frozen=True, kw_only=True):
    """A kernel, started, and the hash seed that it has."""

    kernel: Kernel
    hash_seed: int | None


def cold(wanted: Wanted) -> Supplied:
    """Start a kernel cold.

    Raises:
        KernelProblem: it cannot be started.
    """
    kernel = ColdKernel(
        wanted.name,
        cwd=wanted.cwd,
        settings=wanted.settings,
        environment=_with_seed(wanted.environment, wanted.hash_seed),
    )
    return Supplied(kernel=kernel, hash_seed=wanted.hash_seed)


def _with_seed(environment: Mapping[str, str], seed: int | None) -> dict[str, str]:
    return {**environment, **({_HASH_SEED: str(seed)} if seed is not None else {})}


class WarmSupply:
    """Forks kernels; its zygotes live as long as it does."""

    #: makes one
    zygote: ClassVar[type[Zygote]] = Zygote

    def __init__(self) -> None:
        self._zygotes: dict[Blueprint, tuple[Zygote, Stamp]] = {}
        #: imports that are left to the kernels, and why none is forked, by blueprint
        self._left: dict[Blueprint, dict[str, str]] = {}
        self._unfit: dict[Blueprint, str] = {}
        #: blueprints with a seed that was wanted once
        self._once: set[Blueprint] = set()
        self._specs: Any = None
        self._lock = threading.Lock()
        self._end = weakref.finalize(self, _close_all, self._zygotes)

    def start(self, wanted: Wanted) -> Supplied:
        """Fork a kernel, or start one cold where a fork would not be the same.

        Raises:
            KernelProblem: it cannot be started.
        """
        try:
            with self._lock:
                zygote = self._zygote(wanted)
                if zygote is None:
                    return cold(wanted)
                kernel = WarmKernel(wanted.name, zygote, wanted.settings)
        except CannotFork as error:
            _LOGGER.warning("the kernel starts cold: %s", error.why)
            return cold(wanted)
        seed = dict(zygote.blueprint.environment).get(_HASH_SEED)
        return Supplied(kernel=kernel, hash_seed=int(seed) if seed is not None else None)

    def close(self) -> None:
        """End the zygotes, and their kernels."""
        self._end()

    def _zygote(self, wanted: Wanted) -> Zygote | None:
        """The process to fork from; None where none is worth its start."""
        if not CAN_FORK:
            raise CannotFork(f"kernels are not forked on {sys.platform}")
        blueprint = self._blueprint(wanted)
        self._drop_outdated(wanted)
        bare = _without_seed(blueprint)
        fitting = [
            known
            for known in self._zygotes
            if known == blueprint or (wanted.any_seed and _without_seed(known) == bare)
        ]
        for known in fitting[:1]:
            # used last
            self._zygotes[known] = self._zygotes.pop(known)
            return self._zygotes[known][0]
        if wanted.lone_seed and blueprint not in self._once:
            self._once.add(blueprint)
            return None
        return self._made(blueprint, wanted.meanwhile)

    def _blueprint(self, wanted: Wanted) -> Blueprint:
        return _blueprint(wanted, self._specification(wanted.name))

    def _specification(self, name: str) -> Any:
        from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

        if self._specs is None:
            self._specs = KernelSpecManager()
        try:
            return self._specs.get_kernel_spec(name)
        except NoSuchKernel as error:
            raise CannotFork(f"there is no kernel named {name!r}") from error

    def _drop_outdated(self, wanted: Wanted) -> None:
        """Give up zygotes that have died, or whose modules are not what an import finds now."""
        for known, (zygote, stamp) in list(self._zygotes.items()):
            shadowed = known.cwd == str(wanted.cwd) and shadows(wanted.cwd, zygote.ahead)
            if not zygote.alive() or _stamp(zygote) != stamp or shadowed:
                self._give_up(known)

    def _give_up(self, blueprint: Blueprint) -> None:
        zygote, _ = self._zygotes.pop(blueprint)
        zygote.retire()

    def _made(self, blueprint: Blueprint, meanwhile: Callable[[], object]) -> Zygote:
        bare = _without_seed(blueprint)
        if bare in self._unfit:
            raise CannotFork(self._unfit[bare])
        left = self._left.setdefault(bare, {})
        while True:
            try:
                zygote = self.zygote(blueprint, left, meanwhile)
            except CannotFork as error:
                if not error.module or error.module in left:
                    self._unfit[bare] = error.why
                    raise
                left[error.module] = error.why
                continue
            break
        for module, why in zygote.left.items():
            _LOGGER.info("%s is left to each kernel: %s", module, why)
        self._zygotes[blueprint] = (zygote, _stamp(zygote))
        while len(self._zygotes) > _KEPT:
            self._give_up(next(iter(self._zygotes)))
        return zygote


def _close_all(zygotes: dict[Blueprint, tuple[Zygote, Stamp]]) -> None:
    while zygotes:
        _, (zygote, _) = zygotes.popitem()
        zygote.close()


def _stamp(zygote: Zygote) -> Stamp:
    return site_stamp(site_folders(zygote.path))


def _without_seed(blueprint: Blueprint) -> Blueprint:
    bare = tuple(pair for pair in blueprint.environment if pair[0] != _HASH_SEED)
    return msgspec.structs.replace(blueprint, environment=bare)


def _blueprint(wanted: Wanted, spec: Any) -> Blueprint:
    """What a zygote for this kernel is made of.

    Args:
        wanted: the kernel.
        spec: its specification.

    Raises:
        CannotFork: the kernel is started in a way that cannot be forked.
    """
    if spec.metadata.get("kernel_provisioner") or spec.interrupt_mode != "signal":
        raise CannotFork(f"the kernel {wanted.name!r} has a provisioner or interrupts of its own")
    words = spec.argv
    place = next((n for n in range(1, len(words)) if words[n : n + 2] == _LAUNCHER), 0)
    if not place or not all(word.startswith("-X") for word in words[1:place]):
        raise CannotFork(f"the kernel {wanted.name!r} is not started by ipykernel's launcher alone")
    command = [_filled_in(word, spec) for word in words]
    if command[0] in _PYTHONS:
        command[0] = sys.executable
    environment = {**os.environ, **_with_seed(wanted.environment, wanted.hash_seed)}
    for name, text in spec.env.items():
        environment[name] = Template(text).safe_substitute(environment)
    environment.pop("PYTHONEXECUTABLE", None)
    return Blueprint(
        program=tuple(command[:place]),
        argv=("ipykernel_launcher.py", *command[place + 2 :], *ARGUMENTS),
        cwd=str(wanted.cwd),
        environment=tuple(sorted(environment.items())),
        imports=wanted.imports,
    )


def _filled_in(word: str, spec: Any) -> str:
    """A word of a command line, as jupyter_client fills it in."""
    known = {
        # nobody connects: the file is never written
        "{connection_file}": str(Path(tempfile.gettempdir(), f"cellrail-{os.getpid()}.json")),
        "{prefix}": sys.prefix,
        "{resource_dir}": spec.resource_dir,
    }
    for template, value in known.items():
        word = word.replace(template, value)
    return word
