"""Errors of cellrail.

The tree::

    CellrailError                  anything this package raises on purpose
    ├── UserError                  bad input, or refused: exit code 2
    │   ├── NotANotebook           the file is no notebook of version 4
    │   ├── BadNotebook            a cell's step line or options are wrong; names the cell
    │   ├── UnknownParameter       the parameters cell lacks this name
    │   ├── BadParameter           a parameter's value has the wrong type
    │   ├── RunNotFound            no run at this address
    │   ├── AmbiguousRun           a prefix fits several runs
    │   ├── StepNotFound           the run, or the notebook, has no such step
    │   ├── RecoverRefused         the run cannot go on; names what can be done instead
    │   ├── RestartRefused         the plan of a restart refuses; names the earliest legal cut
    │   ├── BadSchedule            a cron expression, zone, range or template of ticks is wrong
    │   ├── NoSuchTrigger          there is no trigger of this id
    │   ├── NoSuchBackfill         there is no backfill at this address
    │   ├── BackfillRuns           the same backfill is running
    │   ├── TickIsTaken            a run of the tick is under way
    │   ├── BadSelector            a `--changed` is none, or selects nothing
    │   ├── NotWaiting             the run waits for nothing that could be answered
    │   │   └── LinkUnknown        no wait has this token, or not for this
    │   ├── AlreadyAnswered        somebody has answered the wait before, or its time is up
    │   ├── RunSuspended           papermill's caller must not take the run for done: exit code 3
    │   ├── RerunExceeded          `flow.rerun` was asked for more often than it may be
    │   ├── SettingsError          a setting is unknown or wrong
    │   ├── NotSet                 no resource or variable of this name (a `KeyError`)
    │   ├── NotJson                the value is no JSON (a `TypeError`)
    │   ├── BadState               a path, type or value of state is wrong (a `ValueError`)
    │   ├── BadCall                `flow.call` cannot be carried out as it is
    │   ├── CallFailed             a run that `flow.call` waited for is no success
    │   ├── HoldsSecret            the value would be kept in clear and holds a secret
    │   ├── EachChanged            what `flow.each` goes through, or saves, is not what it was
    │   ├── OutsideStep            nothing is being executed that this could be committed with
    │   └── KernelProblem          the kernel cannot be used
    │       ├── KernelNotInstalled
    │       ├── KernelNotIPython
    │       └── KernelLacksCellrail
    └── InternalError              a defect of ours: exit code 70
    KeyboardInterrupt
    └── StillSuspended             Ctrl-C came while the run waited: it goes on waiting

Every message says what happened; `hint` says what to do next.
"""

from __future__ import annotations


class CellrailError(Exception):
    """Something went wrong; the message says what."""

    code = "error"
    exit_code = 2

    def __init__(self, message: str = "", *, hint: str = "") -> None:
        super().__init__(message or (self.__doc__ or "").strip())
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), str(self), self.hint)


def _rebuild(kind: type[CellrailError], message: str, hint: str) -> CellrailError:
    return kind(message, hint=hint)


class UserError(CellrailError):
    """The request cannot be carried out as it is."""

    code = "refused"


class NotANotebook(UserError):
    """The file is no notebook of version 4."""

    code = "not-a-notebook"


class BadNotebook(UserError):
    """A cell of the notebook cannot be a step as it is."""

    code = "bad-notebook"


class UnknownParameter(UserError):
    """The notebook has no such parameter."""

    code = "unknown-parameter"


class BadParameter(UserError):
    """A parameter's value has the wrong type."""

    code = "bad-parameter"


class RunNotFound(UserError):
    """There is no such run."""

    code = "run-not-found"


class AmbiguousRun(UserError):
    """The address fits several runs."""

    code = "ambiguous-run"


class StepNotFound(UserError):
    """There is no such step."""

    code = "step-not-found"


class RestartRefused(UserError):
    """The restart is refused."""

    code = "restart-refused"


class RecoverRefused(UserError):
    """The run cannot go on as it is."""

    code = "recover-refused"


class BadSchedule(UserError):
    """A cron expression, a zone, a range or a template of ticks is wrong."""

    code = "bad-schedule"


class NoSuchTrigger(UserError):
    """There is no such trigger."""

    code = "no-such-trigger"


class NoSuchBackfill(UserError):
    """There is no such backfill."""

    code = "no-such-backfill"


class BackfillRuns(UserError):
    """The same backfill is running."""

    code = "backfill-runs"
    #: its id
    backfill = ""


class TickIsTaken(UserError):
    """A run of the tick is under way."""

    code = "tick-is-taken"


class BadSelector(UserError):
    """A `--changed` that is none, or selects nothing."""

    code = "bad-selector"


class NotWaiting(UserError):
    """The run waits for nothing that could be answered."""

    code = "not-waiting"


class LinkUnknown(NotWaiting):
    """The link is not known here."""

    code = "link-unknown"


class AlreadyAnswered(UserError):
    """The wait has been answered before."""

    code = "already-answered"


class RunSuspended(UserError):
    """The run is suspended; it is not done."""

    code = "run-suspended"
    exit_code = 3


class RerunExceeded(UserError):
    """The step was executed as often as it may be."""

    code = "rerun-exceeded"


class SettingsError(UserError):
    """A setting is unknown or wrong."""

    code = "settings"


class NotSet(UserError, KeyError):
    """There is no such resource or variable."""

    code = "not-set"

    def __str__(self) -> str:
        # a KeyError shows the repr of its argument
        return str(self.args[0])


class NotJson(UserError, TypeError):
    """The value is no JSON."""

    code = "not-json"


class BadState(UserError, ValueError):
    """A path, type or value of state is wrong."""

    code = "bad-state"


class BadCall(UserError, ValueError):
    """The notebook cannot be called like this."""

    code = "bad-call"


class CallFailed(UserError):
    """A run that was called is no success."""

    code = "call-failed"
    #: the run, as `flow.call` would have returned it
    run: object = None


class HoldsSecret(UserError, ValueError):
    """The value holds a secret, and would be kept in clear."""

    code = "holds-secret"


class EachChanged(UserError, ValueError):
    """What `flow.each` goes through, or saves, is not what it was when it stored."""

    code = "each-changed"


class OutsideStep(UserError):
    """No step is being executed that this could be committed with."""

    code = "outside-step"


class KernelProblem(UserError):
    """The kernel cannot be used."""

    code = "kernel"


class KernelNotInstalled(KernelProblem):
    """There is no such kernel."""

    code = "kernel-not-installed"


class KernelNotIPython(KernelProblem):
    """The kernel is no IPython kernel."""

    code = "kernel-not-ipython"


class KernelLacksCellrail(KernelProblem):
    """The kernel's environment lacks cellrail."""

    code = "kernel-lacks-cellrail"


class StillSuspended(KeyboardInterrupt):
    """Ctrl-C came while this process stayed with a run that waits: the run goes on waiting."""

    def __init__(self, message: str = "", *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class InternalError(CellrailError):
    """A defect of cellrail; please report it."""

    code = "internal"
    exit_code = 70
