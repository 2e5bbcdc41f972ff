"""File systems on which a store may not lie: locks over a network do not keep what they promise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from cellrail_state.errors import StoreOnNetwork

_NETWORK = frozenset(
    (
        "9p", "afs", "ceph", "cifs", "davfs", "fuse.davfs", "fuse.glusterfs", "fuse.rclone",
        "fuse.s3fs", "fuse.sshfs", "glusterfs", "lustre", "ncpfs", "nfs", "nfs4", "smb", "smb3",
        "smbfs", "webdav",
    )
)  # fmt: skip


class Mount(msgspec.Struct, frozen=True):
    """A mounted file system."""

    point: str
    kind: str


def is_on_network(path: Path, mounts: Sequence[Mount] | None = None) -> bool:
    """Whether another machine may see a folder, and hold locks there that nobody here sees.

    Args:
        path: the folder.
        mounts: what is mounted where; by default asked of the system.
    """
    mount = _mount_of(path, _mounts() if mounts is None else mounts)
    return mount is None or mount.kind in _NETWORK or mount.kind.startswith("fuse")


def refuse_network(path: Path, mounts: Sequence[Mount] | None = None) -> None:
    """Refuse a folder on a network file system.

    Args:
        path: the folder.
        mounts: what is mounted where; by default asked of the system.

    Raises:
        StoreOnNetwork: it lies on one.
    """
    mount = _mount_of(path, _mounts() if mounts is None else mounts)
    if mount is not None and mount.kind in _NETWORK:
        raise StoreOnNetwork(
            f"{path} lies on a network file system ({mount.kind} at {mount.point}), "
            "where file locks and the catalog are not safe",
            hint="choose a local folder with --store or CELLRAIL_STORE",
        )


def _mount_of(path: Path, mounts: Sequence[Mount]) -> Mount | None:
    resolved = path.resolve()
    above = [m for m in mounts if resolved.is_relative_to(m.point)]
    return max(above, key=lambda mount: len(mount.point), default=None)


def _mounts() -> list[Mount]:
    import psutil

    return [Mount(p.mountpoint, p.fstype.lower()) for p in psutil.disk_partitions(all=True)]
