"""What a job did beyond its kernel: values that outlive the run, files of the shared folder."""

from __future__ import annotations

import msgspec

from .stored import ObjectRef


class _Struct(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of the records."""


class Written(_Struct, frozen=True):
    """A value that outlives its run, as a step or a person set it."""

    #: resource (states are resources of type `state`), variable, or once
    kind: str
    path: str
    #: its version from here on; the first one is 1
    version: int
    #: JSON text, encrypted where it is secret; large ones lie in the objects; None: deleted
    value: str | ObjectRef | None = None
    #: of a resource: the type it was created with
    type: str = ""
    secret: bool = False


class SharedFile(_Struct, frozen=True):
    """A file of the run's shared folder as it stood after a step."""

    ref: ObjectRef | None = None
    mode: int = 0o644
    mtime_ns: int = 0
    #: where a symbolic link points to
    link: str = ""
    #: a folder that holds nothing
    folder: bool = False
    #: why it does not come back; "" where it does
    lost: str = ""


class Effects(_Struct, frozen=True):
    """What a job did beyond its kernel, and what it saw there."""

    #: names these effects in the ledger of what outlives runs; "" where nothing of them does
    token: str = ""
    #: what the job set; a job that did not succeed has set nothing
    writes: tuple[Written, ...] = ()
    #: the resources it read, as it saw them
    reads: tuple[Written, ...] = ()
    #: the variables it read, as it saw them
    settings: tuple[Written, ...] = ()
    #: the resources that it set without having read them, as they stood before
    replaced: tuple[Written, ...] = ()
    #: keys of the flow user state that it read
    asked: tuple[str, ...] = ()
    #: flow user state that it set: JSON text by key
    user: dict[str, str] = {}
    #: files of the shared folder that it made or changed, by path
    shared: dict[str, SharedFile] = {}
    #: files of the shared folder that are gone since
    unshared: tuple[str, ...] = ()
    #: other effects by name (`once`, `suspend`)
    marks: tuple[str, ...] = ()

    @property
    def kinds(self) -> tuple[str, ...]:
        """What it did that must not be done twice, in words; empty where nothing was."""
        kinds = ["state"] if self.writes or self.user else []
        kinds += ["shared files"] if self.shared or self.unshared else []
        return (*kinds, *self.marks)

    def refs(self) -> tuple[ObjectRef, ...]:
        """Every object that these effects need."""
        values = [w.value for w in (*self.writes, *self.reads, *self.settings, *self.replaced)]
        files = [file.ref for file in self.shared.values()]
        return tuple(ref for ref in (*values, *files) if isinstance(ref, ObjectRef))
