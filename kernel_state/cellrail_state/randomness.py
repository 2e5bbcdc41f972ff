"""The global random generators, read and put back: of `random`, NumPy (legacy), torch (CPU).

Only of libraries that are imported: nothing here imports one to look at it.
"""

from __future__ import annotations

import base64
import importlib
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def read() -> dict[str, Any]:
    """The generators' states, JSON-able, under the names of `PUT`."""
    version, words, gauss = random.getstate()
    made: dict[str, Any] = {
        "random": {"version": version, "state": _words(words), "gauss": gauss},
    }
    np, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if np is not None:
        kind, packed, position, has_gauss, normal = _legacy_state(np)
        if isinstance(packed, bytes):
            made["numpy"] = {
                "kind": kind,
                "state": base64.b64encode(packed).decode(),
                "position": int(position),
                "has_gauss": int(has_gauss),
                "gauss": float(normal),
            }
    if torch is not None:
        state = bytes(torch.get_rng_state().numpy())
        made["torch"] = base64.b64encode(state).decode()
    return made


def cheap() -> tuple[Any, ...]:
    """A value that changes when a generator draws; costs microseconds, not milliseconds."""
    np, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    return (
        random.getstate(),
        _legacy_state(np) if np is not None else None,
        bytes(torch.get_rng_state().numpy()) if torch is not None else None,
    )


def _legacy_state(np: Any) -> tuple[Any, ...]:
    state = np.random.get_state(legacy=False)
    inner = state["state"]
    key = inner.get("key")
    packed = key.tobytes() if key is not None else repr(inner)
    return (
        state["bit_generator"],
        packed,
        inner.get("pos"),
        state.get("has_gauss"),
        state.get("gauss"),
    )


def _words(values: Sequence[int]) -> str:
    data = b"".join(int(v).to_bytes(4, "little") for v in values)
    return base64.b64encode(data).decode()


def _put_random(state: Mapping[str, Any]) -> None:
    data = base64.b64decode(state["state"])
    words = tuple(int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4))
    random.setstate((state["version"], words, state["gauss"]))


def _put_numpy(state: Mapping[str, Any]) -> None:
    np = importlib.import_module("numpy")
    key = np.frombuffer(base64.b64decode(state["state"]), dtype=np.uint32)
    np.random.set_state((state["kind"], key, state["position"], state["has_gauss"], state["gauss"]))


def _put_torch(state: str) -> None:
    torch = importlib.import_module("torch")
    torch.set_rng_state(torch.frombuffer(bytearray(base64.b64decode(state)), dtype=torch.uint8))


#: puts one generator back, by name; of each the state that `read` gave for it
PUT: dict[str, Callable[[Any], object]] = {
    "random": _put_random,
    "numpy": _put_numpy,
    "torch": _put_torch,
}


def _seed_numpy(digest: bytes) -> None:
    np = importlib.import_module("numpy")
    np.random.seed(np.frombuffer(digest, dtype=np.uint32))


def _seed_torch(digest: bytes) -> None:
    importlib.import_module("torch").manual_seed(int.from_bytes(digest[:8], "little"))


#: begins one generator anew, by name, from 32 bytes
SEED: dict[str, Callable[[bytes], object]] = {
    "random": lambda digest: random.seed(int.from_bytes(digest, "little")),
    "numpy": _seed_numpy,
    "torch": _seed_torch,
}
