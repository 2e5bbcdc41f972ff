"""The inbox of a store: waits, and their answers, of runs that nobody owns.

`waits/RUN/N.open` tells of a wait (`WaitInfo`), from the call in the cell on; `N.answer` is its one
`Answer`. An answer is made by linking a whole file under its name, which succeeds once: of a
resume, a cancel, a timeout and a second resume one wins, whatever process they come from, and
whoever is killed meanwhile. The others read who was first.

An answer does not change the run. Its owner, or whoever owns it next, takes the answer into the
journal (`Woken`), goes on, and then turns `N.open` into `N.done`. So while there is an `.open` with
an answer, somebody has still to go on, and `tick` does. Both files are signed: what reaches a cell
as data was put there by somebody with the user's key. What comes with an answer is encrypted: who
answers does not know which secrets the run has, and whether some of it is one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from cellrail_state.crashpoints import CrashPoints, NoCrash
from cellrail_state.errors import StateError, StoreError, StoreNotWritable
from cellrail_state.keys import KeyRing, signature, untrusted
from cellrail_state.objects import sync_folder
from cellrail_state.waits import CANCEL, TIMEOUT, Answer, WaitInfo

_OPEN, _DONE, _ANSWER = ".open", ".done", ".answer"
_STOP = "stop"
_MAC_BYTES = 32
T = TypeVar("T")


class Inbox:
    """Waits and answers of one store."""

    def __init__(
        self, folder: Path, *, keyring: KeyRing, points: CrashPoints | None = None
    ) -> None:
        """Know the folder.

        Args:
            folder: made when the first wait is told.
            keyring: signs, and tells whose signatures count.
            points: where a test may end the process.
        """
        self._folder, self._keyring = folder, keyring
        self._points = points or NoCrash()

    # --- waits -------------------------------------------------------------------------------

    def tell(self, wait: WaitInfo) -> None:
        """There is a wait, or it is known now when its time is up. Durable.

        Raises:
            StoreNotWritable: there is no room or no permission.
        """
        path = self._path(wait.wait_id, _OPEN)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._written(path, msgspec.json.encode(wait))
            temporary.replace(path)
            sync_folder(path.parent)
            sync_folder(self._folder)
        except OSError as error:
            raise _not_writable(path, error) from error

    def wait(self, wait_id: str) -> WaitInfo | None:
        """What is told of a wait, over or not."""
        for suffix in (_OPEN, _DONE):
            found = self._read(self._path(wait_id, suffix), WaitInfo)
            if found is not None:
                return found
        return None

    def waiting(self, run_id: str = "") -> list[WaitInfo]:
        """The waits that nobody has gone on from, oldest first: of a run, or of all."""
        found = [
            self._read(path, WaitInfo) for path in self._folder.glob(f"{run_id or '*'}/*{_OPEN}")
        ]
        return sorted((wait for wait in found if wait is not None), key=lambda wait: wait.asked)

    def done(self, wait_id: str) -> None:
        """The run has gone on from it."""
        with contextlib.suppress(FileNotFoundError):
            self._path(wait_id, _OPEN).rename(self._path(wait_id, _DONE))

    # --- answers -----------------------------------------------------------------------------

    def answer(self, wait_id: str, answer: Answer) -> Answer:
        """Answer a wait, unless it was answered before; the answer that counts.

        Raises:
            StoreNotWritable: there is no room or no permission.
        """
        return self._opened(self._once(self._path(wait_id, _ANSWER), self._sealed(answer)))

    def answered(self, wait_id: str) -> Answer | None:
        """The answer to a wait; None while there is none."""
        found = self._read(self._path(wait_id, _ANSWER), Answer)
        return self._opened(found) if found is not None else None

    def due(self, wait: WaitInfo, now: float) -> Answer | None:
        """The answer to a wait; where its time is up and there was none, it is that."""
        found = self.answered(wait.wait_id)
        if found is not None or wait.until is None or now < wait.until:
            return found
        return self.answer(wait.wait_id, Answer(by=TIMEOUT, time=wait.until))

    # --- runs --------------------------------------------------------------------------------

    def stop(self, run_id: str, *, who: str, now: float) -> None:
        """Somebody cancels a run that is running: its owner is told why it is interrupted."""
        path = self._folder / run_id / _STOP
        self._once(path, Answer(by=CANCEL, time=now, who=who))

    def stopped(self, run_id: str) -> Answer | None:
        """Who has cancelled a run while it was running; None where nobody has."""
        return self._read(self._folder / run_id / _STOP, Answer)

    def forget(self, run_id: str) -> None:
        """The run is deleted."""
        shutil.rmtree(self._folder / run_id, ignore_errors=True)

    # --- what a doctor needs -----------------------------------------------------------------

    def run_ids(self) -> list[str]:
        """The runs that files are there of."""
        return sorted(path.name for path in self._folder.glob("*") if path.is_dir())

    def half_made(self) -> list[Path]:
        """Files that somebody was killed while writing."""
        return sorted(self._folder.glob("*/.*.tmp"))

    def faults(self, run_id: str) -> list[tuple[Path, str]]:
        """Files of a run that cannot be read, and why; without them a wait can be answered anew."""
        found = []
        for path in sorted((self._folder / run_id).glob("[!.]*")):
            kind = WaitInfo if path.suffix in {_OPEN, _DONE} else Answer
            try:
                self._read(path, kind)
            except StateError as error:
                found.append((path, str(error)))
        return found

    def is_told(self, wait_id: str) -> bool:
        """Whether `tick` knows that somebody has still to go on from a wait."""
        return self._path(wait_id, _OPEN).exists()

    def told(self, run_id: str) -> list[str]:
        """The waits of a run that somebody has still to go on from, as far as they are told."""
        paths = sorted((self._folder / run_id).glob(f"[!.]*{_OPEN}"))
        return [f"{run_id}/{path.stem}" for path in paths]

    # --- what comes with an answer ------------------------------------------------------------

    def _sealed(self, answer: Answer) -> Answer:
        if answer.data is None and answer.request is None:
            return answer
        return _with(answer, self._keyring.encrypt, sealed=True)

    def _opened(self, answer: Answer) -> Answer:
        return _with(answer, self._keyring.decrypt, sealed=False) if answer.sealed else answer

    # --- files -------------------------------------------------------------------------------

    def _path(self, wait_id: str, suffix: str) -> Path:
        run_id, _, number = wait_id.rpartition("/")
        return self._folder / run_id / f"{number}{suffix}"

    def _once(self, path: Path, answer: Answer) -> Answer:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._written(path, msgspec.json.encode(answer))
            try:
                self._points.reach("inbox.before_answer")
                os.link(temporary, path)
                sync_folder(path.parent)
                self._points.reach("inbox.after_answer")
            except FileExistsError:
                pass
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise _not_writable(path, error) from error
        return self._read(path, Answer) or answer

    def _written(self, path: Path, payload: bytes) -> Path:
        """A file beside `path` that holds this, signed, durably."""
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        mac = signature(self._keyring.key(), self._name(path), payload)
        with temporary.open("wb") as file:
            file.write(mac + payload)
            file.flush()
            os.fsync(file.fileno())
        return temporary

    def _read(self, path: Path, kind: type[T]) -> T | None:
        try:
            data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        mac, payload = data[:_MAC_BYTES], data[_MAC_BYTES:]
        import hmac

        name = self._name(path)
        keys = self._keyring.verifying_keys()
        if not any(hmac.compare_digest(mac, signature(key, name, payload)) for key in keys):
            raise untrusted(self._folder.parent)
        try:
            return msgspec.json.decode(payload, type=kind)
        except msgspec.MsgspecError as error:
            raise StoreError(f"{path} is damaged: {error}") from error

    @staticmethod
    def _name(path: Path) -> bytes:
        """What a file is signed as: it stands for no other wait and no other thing."""
        what = _OPEN if path.suffix == _DONE else path.suffix
        return f"{path.parent.name}/{path.stem}{what}".encode()


def _with(answer: Answer, turned: Callable[[str], str], *, sealed: bool) -> Answer:
    """An answer with what came with it turned into something else."""
    data, request = (turned(t) if t is not None else None for t in (answer.data, answer.request))
    return msgspec.structs.replace(answer, data=data, request=request, sealed=sealed)


def _not_writable(path: Path, error: OSError) -> StoreNotWritable:
    return StoreNotWritable(
        f"a wait cannot be told of ({error.strerror}): {path}", hint="make room in the store"
    )
