"""Errors of the kernel-state package.

The tree::

    StateError                     anything this package raises on purpose
    ├── StoreError                 the folder as a whole
    │   ├── StoreNotFound          no store where one was asked for
    │   ├── StoreNotWritable       the folder cannot be written
    │   ├── StoreTooNew            made by a newer version of cellrail
    │   └── StoreOnNetwork         the catalog would lie on a network file system
    ├── JournalError               a run's journal
    │   ├── RunIsOwned             its owner is alive: it is still running
    │   │   └── RunBegun           another process has begun it
    │   ├── RunTakenOver           another process went on with it: this one may not write any more
    │   └── JournalDamaged         a record is torn or changed
    ├── ObjectError                a content-addressed object
    │   ├── ObjectMissing          it is not there
    │   └── ObjectDamaged          its bytes are not what its address says
    ├── LedgerError                what outlives runs: states, resources, variables
    │   ├── StateConflict          somebody else wrote it in the meantime
    │   └── LedgerDamaged          the ledger cannot be read
    ├── Untrusted                  signed by nobody this user trusts: nothing was unpickled
    └── ValueProblem               a single value
        ├── CannotStore            it cannot be pickled, or its copy does not load
        └── CannotRestore          its stored copy does not load here

Every message says what happened and what to do next.
"""

from __future__ import annotations


class StateError(Exception):
    """Something about the stored state is wrong; the message says what to do."""

    code = "state"

    def __init__(self, message: str = "", *, hint: str = "") -> None:
        super().__init__(message or (self.__doc__ or "").strip())
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), str(self), self.hint)


def _rebuild(kind: type[StateError], message: str, hint: str) -> StateError:
    return kind(message, hint=hint)


class StoreError(StateError):
    """The store cannot be used."""

    code = "store"


class StoreNotFound(StoreError):
    """There is no store here; run a notebook first, or name one with --store."""

    code = "store-not-found"


class StoreNotWritable(StoreError):
    """The store cannot be written; check its permissions or choose another with --store."""

    code = "store-not-writable"


class StoreTooNew(StoreError):
    """The store was made by a newer cellrail; upgrade this one."""

    code = "store-too-new"


class StoreOnNetwork(StoreError):
    """The catalog cannot lie on a network file system; choose a local folder with --store."""

    code = "store-on-network"


class JournalError(StateError):
    """A run's journal cannot be used."""

    code = "journal"


class RunIsOwned(JournalError):
    """The run is still running."""

    code = "run-is-running"


class RunBegun(RunIsOwned):
    """Another process has begun the run."""

    code = "run-was-begun"


class RunTakenOver(JournalError):
    """Another process went on with the run; this one stops, and writes nothing more."""

    code = "run-taken-over"


class JournalDamaged(JournalError):
    """The journal is torn or was changed; run `cellrail doctor`."""

    code = "journal-damaged"


class ObjectError(StateError):
    """A stored object cannot be used."""

    code = "object"


class ObjectMissing(ObjectError):
    """A stored object is missing; run `cellrail doctor`."""

    code = "object-missing"


class ObjectDamaged(ObjectError):
    """A stored object's bytes are not what its address says; run `cellrail doctor`."""

    code = "object-damaged"


class LedgerError(StateError):
    """What outlives runs cannot be read or written."""

    code = "ledger"


class StateConflict(LedgerError):
    """Somebody else wrote this in the meantime."""

    code = "state-conflict"


class LedgerDamaged(LedgerError):
    """The ledger of states, resources and variables is damaged; run `cellrail doctor --fix`."""

    code = "ledger-damaged"


class Untrusted(StateError):
    """The store was signed by somebody else; `cellrail trust STORE` adopts it."""

    code = "untrusted"


class ValueProblem(StateError):
    """A value cannot be stored or restored."""

    code = "value"


class CannotStore(ValueProblem):
    """The value cannot be stored."""

    code = "cannot-store"


class CannotRestore(ValueProblem):
    """The stored value does not load here."""

    code = "cannot-restore"
