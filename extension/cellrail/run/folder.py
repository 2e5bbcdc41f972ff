"""The clerk of the run's shared folder, and its name in the working directory.

A cell that asks for `flow.shared` makes the folder. After each step that succeeds, files that are
new or not as they were (by size, time and inode, then by content) go to the store's objects, and
the step's record points to them. A restart fills the folder of the new run with the files as they
stood before its cut; an attempt that is tried again begins on the files before it.

Items that are carried out beside one another share the folder, and nobody knows who writes a file.
Each item's record has all that has changed while it ran, so a restart that keeps some items keeps
their files, and perhaps some that others wrote at the same time; what the loop has come to is in
the next record of the run's own chain once more.

A file that holds a secret of the run is not kept; the record says so.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import stat
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from cellrail.errors import BadState, UserError
from cellrail.run.desk import Clerk, Desk, Handler, Job, Then
from cellrail_state.model import Effects, JobFinished, ObjectRef, SharedFile
from cellrail_state.objects import PART, PARTED, join
from cellrail_state.scanning import Scanner
from cellrail_state.store import Store

#: its name in the working directory
NAME = "shared"
#: a secret that begins at the end of a part is found in the next one
_OVERLAP = 1 << 16
#: a run that has just made its link has no journal yet
_YOUNG_SECONDS = 60.0

#: what tells that a file was not touched: size, time of change, inode, mode
_Look = tuple[int, int, int, int]
#: a file as it lies there
Seen = tuple[_Look, SharedFile]


class Folder(Clerk):
    """Keeps the run's shared folder."""

    def __init__(self, desk: Desk) -> None:
        """Know the run's desk."""
        self._desk = desk
        store = desk.recorder.store
        self._objects = store.objects
        self.path = store.shared_folder(desk.recorder.run_id)
        #: the files as they stood after the last step that succeeded
        self.files: dict[str, SharedFile] = {}
        #: what lay there when it was looked at last
        self.seen: Mapping[str, Seen] = {}
        #: what the job that has just ended made of them
        self._found: Effects | None = None
        #: why a cell that is executed again cannot have them as they were; "" where it can
        self._refuses = ""
        #: what is put back behind a cell that is executed again
        self._aside: Mapping[str, SharedFile] | None = None

    def handlers(self) -> Mapping[str, Handler]:
        """What cells can ask."""
        return {"shared": self.folder, "shared_place": self.folder}

    def another(self, desk: Desk) -> Clerk:
        """Keeps what an item of a parallel loop makes of the folder with its jobs."""
        del desk
        return _Beside(self)

    def forked(self, kept: Iterable[JobFinished], *, in_sequence: bool) -> None:
        """The files of items that are kept are there before the others begin."""
        del in_sequence
        files = files_after(kept, on=self.files)
        if files != self.files:
            self._fill(files)
        self.look()

    def folder(self, job: Job | None) -> str:
        """Where it is; made if it is not there.

        Raises:
            BadState: its files are not those that the cell saw when it ran first.
        """
        del job
        if self._refuses:
            raise BadState(self._refuses, hint="restart from this step")
        self.path.mkdir(parents=True, exist_ok=True)
        return str(self.path)

    # --- the job -----------------------------------------------------------------------------

    def begin(self, job: Job) -> None:
        """Nothing was looked at since."""
        del job
        self._found = None

    def contribute(self, effects: Effects, *, success: bool) -> Effects:
        """The files that are not as they were."""
        if success and self._found is None:
            self._found = self._changes()
        return _with(effects, self._found) if success and self._found is not None else effects

    def committed(self, job: Job, effects: Effects, *, replaces: str) -> None:
        """These files are the run's from now on."""
        del job, replaces
        self.files = _after(self.files, effects)
        self._found = None

    def _changes(self) -> Effects:
        there = {name: file for name, (_, file) in self.look().items()}
        for name, known in self.files.items():
            if name in there and _same(known, there[name]):
                there[name] = known
        changed = {name: file for name, file in there.items() if self.files.get(name) != file}
        return Effects(shared=changed, unshared=tuple(sorted(self.files.keys() - there.keys())))

    def look(self) -> Mapping[str, Seen]:
        """What is there; its content is in the store."""
        if not (self.files or self.seen or self.path.is_dir()):
            return self.seen
        scanner, seen = Scanner(self._desk.recorder.masker.secrets), dict[str, Seen]()
        for name, path in entries(self.path):
            with contextlib.suppress(FileNotFoundError):  # gone since it was listed
                look, old = _look(path), self.seen.get(name)
                known = old is not None and old[0] == look
                seen[name] = old if old and known else (look, self._taken(name, path, scanner))
        self._objects.flush()
        self.seen = seen
        return seen

    def _taken(self, name: str, path: Path, scanner: Scanner) -> SharedFile:
        file = self._stored(path, scanner)
        if file.lost:
            logging.getLogger("cellrail").warning("shared/%s is not kept: %s", name, file.lost)
        return file

    def _stored(self, path: Path, scanner: Scanner) -> SharedFile:
        found = path.lstat()
        mode = stat.S_IMODE(found.st_mode)
        if stat.S_ISLNK(found.st_mode):
            return SharedFile(link=str(path.readlink()))
        if stat.S_ISDIR(found.st_mode):
            return SharedFile(folder=True, mode=mode)
        if not stat.S_ISREG(found.st_mode):
            return SharedFile(lost="no file, but a socket or a pipe")
        try:
            if _holds_secret(path, scanner):
                return SharedFile(lost="holds a secret", mode=mode)
            ref = self._put(path)
        except PermissionError:
            return SharedFile(lost="it cannot be read", mode=mode)
        return SharedFile(ref=ref, mode=mode, mtime_ns=found.st_mtime_ns)

    def _put(self, path: Path) -> ObjectRef:
        """Store a file, a part at a time."""
        with path.open("rb") as file:
            data = file.read(PARTED + 1)
            if len(data) <= PARTED:
                return self._objects.put(data)
            file.seek(0)
            return join([self._objects.put(part) for part in iter(lambda: file.read(PART), b"")])

    # --- back --------------------------------------------------------------------------------

    def started_on(self, jobs: Iterable[JobFinished]) -> None:
        """The folder is filled with the files as these jobs have left them."""
        self.files = files_after(jobs)
        self.roll_back()

    def roll_back(self) -> None:
        """The folder holds the files as they stood after the last step that succeeded."""
        self._found = None
        self._fill(self.files)

    def goes_back(self, then: Then | None) -> None:
        """The folder holds the files as they stood before a kept job; None: as they stand now."""
        self._refuses = ""
        if then is None:
            if self._aside is not None:
                self._fill(self._aside)
            self._aside = None
            return
        files = files_after(then.before)
        # a step that has failed may have changed some, and they stay for what handles that
        now = {name: file for name, (_, file) in self.look().items()}
        if now.keys() == files.keys() and all(_same(files[n], file) for n, file in now.items()):
            return
        if any(file.lost for file in now.values()):
            self._refuses = not_as_it_was(then)
            return
        self._aside = now
        self._fill(files)

    def _fill(self, files: Mapping[str, SharedFile]) -> None:
        """The folder holds these files and no others."""
        if not (files or self.path.is_dir()):
            return
        self.path.mkdir(parents=True, exist_ok=True)
        untouched = self._untouched(files)
        stays = untouched | {name for name, path in entries(self.path) if _is_in(files, name, path)}
        for path in self.path.iterdir():
            if not any(name.split("/", 1)[0] == path.name for name in stays):
                _remove(path)
        for name, path in list(entries(self.path)):
            if name not in stays:
                _remove(path)
        for name, file in sorted(files.items()):
            if name not in untouched:
                self._write(self.path / name, file)
        self.seen = {
            name: (_look(path), files[name]) for name, path in entries(self.path) if name in files
        }

    def _untouched(self, files: Mapping[str, SharedFile]) -> set[str]:
        """Files that are there as they are to be."""
        found = set()
        for name, path in entries(self.path):
            if name in files and self.seen.get(name) == (_look(path), files[name]):
                found.add(name)
        return found

    def _write(self, path: Path, file: SharedFile) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if file.lost:
            return
        if file.folder:
            path.mkdir(exist_ok=True)
            path.chmod(file.mode)
        elif file.link:
            path.symlink_to(file.link)
        elif file.ref is not None and path.exists():
            # a connection that holds it open goes on with what stands there
            with path.open("r+b") as there:
                there.write(self._objects.buffer(file.ref))
                there.truncate()
            path.chmod(file.mode)
            os.utime(path, ns=(file.mtime_ns, file.mtime_ns))
        elif file.ref is not None:
            temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
            temporary.write_bytes(self._objects.buffer(file.ref))
            temporary.chmod(file.mode)
            os.utime(temporary, ns=(file.mtime_ns, file.mtime_ns))
            temporary.replace(path)


class _Beside(Clerk):
    """Keeps what changes in the folder while an item runs, beside others that write in it, too.

    Nothing is put back before the item is tried again: it could be another's.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        #: what was there when the item began, or committed last
        self._since = folder.seen

        #: why a cell that is executed again cannot have the files as they were
        self._refuses = ""

    def handlers(self) -> Mapping[str, Handler]:
        return {"shared": self._asked, "shared_place": self._folder.folder}

    def _asked(self, job: Job | None) -> str:
        if self._refuses:
            raise BadState(self._refuses, hint="make it in the loop, or restart from this step")
        return self._folder.folder(job)

    def goes_back(self, then: Then | None) -> None:
        """Nothing is put back beside items that use the folder."""
        self._refuses = ""
        if then is None:
            return
        files = files_after(then.before)
        there = {name: file for name, (_, file) in self._folder.seen.items()}
        gone = any(name not in there or not _same(f, there[name]) for name, f in files.items())
        if gone or self._folder.files.keys() - files.keys():
            self._refuses = not_as_it_was(then)

    def contribute(self, effects: Effects, *, success: bool) -> Effects:
        if not success:
            return effects
        # others write between a look and the next: each looks anew
        there, before = self._folder.look(), self._since
        # the same once more counts as well: what was there may be gone where this item is kept
        changed = {name: seen[1] for name, seen in there.items() if before.get(name) != seen}
        gone = (before.keys() | self._folder.files.keys()) - there.keys()
        return _with(effects, Effects(shared=changed, unshared=tuple(sorted(gone))))

    def committed(self, job: Job, effects: Effects, *, replaces: str) -> None:
        del job, replaces
        if effects.shared or effects.unshared:
            self._since = self._folder.seen


def files_after(
    jobs: Iterable[JobFinished], *, on: Mapping[str, SharedFile] | None = None
) -> dict[str, SharedFile]:
    """The shared files as these jobs have left them, in order, by path.

    Args:
        jobs: those that succeeded.
        on: the files before the first of them; none where it is not given.
    """
    files = dict(on or {})
    for job in jobs:
        if job.effects is not None:
            files = _after(files, job.effects)
    return files


def _after(files: Mapping[str, SharedFile], effects: Effects) -> dict[str, SharedFile]:
    return {n: f for n, f in files.items() if n not in effects.unshared} | effects.shared


def _with(effects: Effects, found: Effects) -> Effects:
    return msgspec.structs.replace(effects, shared=found.shared, unshared=found.unshared)


def entries(folder: Path) -> Iterator[tuple[str, Path]]:
    """Files, links and empty folders below a folder, by relative path."""
    for root, folders, names in os.walk(folder):
        here = Path(root)
        links = [name for name in folders if (here / name).is_symlink()]
        for name in [*names, *links]:
            yield (here / name).relative_to(folder).as_posix(), here / name
        if not folders and not names and here != folder:
            yield here.relative_to(folder).as_posix(), here


def not_as_it_was(then: Then) -> str:
    """Why a cell that is executed again does not get the folder, in words."""
    return (
        f"{then.job.label} is executed again for what it made, and the shared files are not as it "
        "saw them"
    )


def _is_in(files: Mapping[str, SharedFile], name: str, path: Path) -> bool:
    """Whether a file that is there is to have another content, and nothing else has it, too."""
    found = path.lstat()
    alone = stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and os.access(path, os.W_OK)
    return alone and name in files and files[name].ref is not None


def _look(path: Path) -> _Look:
    found = path.lstat()
    return found.st_size, found.st_mtime_ns, found.st_ino, found.st_mode


def _same(known: SharedFile, file: SharedFile) -> bool:
    """Whether two files differ in nothing but their times."""
    return msgspec.structs.replace(known, mtime_ns=0) == msgspec.structs.replace(file, mtime_ns=0)


def _holds_secret(path: Path, scanner: Scanner) -> bool:
    if not scanner:
        return False
    tail = b""
    with path.open("rb") as file:
        while part := file.read(PART):
            if scanner.hits(tail + part):
                return True
            tail = part[-_OVERLAP:]
    return False


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class SharedLink:
    """`./shared` in the working directory, while a run lasts."""

    def __init__(self, cwd: Path, store: Store, *, own: str = "") -> None:
        """Know where it will be.

        Args:
            cwd: the working directory.
            store: the store of the run.
            own: a run that goes on; its link may be there still.

        Raises:
            UserError: the name is taken.
        """
        self._path, self._store, self._own = cwd / NAME, store, own
        self._target: Path | None = None
        self._refuse_if_taken()

    def _refuse_if_taken(self) -> None:
        if not self._path.is_symlink() and not self._path.exists():
            return
        holder = self._holder()
        if holder == self._own:
            return
        if holder is None:
            raise UserError(
                f"{self._path} exists, and cellrail has not made it: it stays as it is",
                hint="run without --shared (flow.shared is there anyway), or in another --cwd",
            )
        if self._store.is_owned(holder) or self._is_young(holder):
            raise UserError(
                f"{self._path} is held by run {holder}, which is running",
                hint="wait for its end, or choose another --cwd",
            )

    def _holder(self) -> str | None:
        """The run whose folder it leads to; None where it is none of ours."""
        if not self._path.is_symlink():
            return None
        target = self._path.readlink()
        if target.parent != self._store.path / "shared":
            return None
        return target.name

    def _is_young(self, holder: str) -> bool:
        begun = self._store.journal_size(holder)
        return not begun and time.time() - self._path.lstat().st_mtime < _YOUNG_SECONDS

    def make(self, run_id: str) -> None:
        """Make it lead to a run's folder.

        Raises:
            UserError: the name was taken a moment ago, or this system makes no links.
        """
        folder = self._store.shared_folder(run_id)
        folder.mkdir(parents=True, exist_ok=True)
        self._refuse_if_taken()
        try:
            if self._path.is_symlink():  # of a run that is gone
                self._path.unlink()
            self._path.symlink_to(folder, target_is_directory=True)
        except OSError as error:
            raise UserError(f"{self._path} cannot be made: {error.strerror}") from error
        self._target = folder

    def remove(self) -> None:
        """Take it away, if it is still the one that was made."""
        if self._target is not None and self._path.is_symlink():
            if self._path.readlink() == self._target:
                self._path.unlink()
            self._target = None
