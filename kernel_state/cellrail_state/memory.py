"""What a stream may call by name to build objects whose memory others show, too.

Like those of `loading`, the names of the public functions are part of the codec `pickle5/1`.
"""

from __future__ import annotations

import importlib
import weakref
from typing import Any

from . import loading


def array_on_buffer(  # noqa: PLR0917 - the order is part of the codec
    owner: Any,
    dtype: Any,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    offset: int,
    writeable: bool,
) -> Any:
    """An array on the memory of a bytearray or another holder of bytes."""
    import numpy as np

    whole = np.frombuffer(memoryview(owner).cast("B"), dtype="u1")
    return loading.array_view(whole, dtype, shape, strides, offset, writeable)


def array_of(kind: Any, make: Any, args: tuple[Any, ...]) -> Any:
    """An array of a subclass; its attributes follow."""
    return make(*args).view(kind)


#: Arrow memory that was loaded and lives, by size and a few of its bytes
_arrow: weakref.WeakValueDictionary[tuple[int, bytes, bytes], Any] = weakref.WeakValueDictionary()
_FEW = 64


def arrow_buffer(data: Any) -> Any:
    """Arrow memory. Nobody writes to it, so equal bytes need to be there only once."""
    pa = importlib.import_module("pyarrow")
    view = memoryview(data).cast("B")
    key = (view.nbytes, bytes(view[:_FEW]), bytes(view[-_FEW:]))
    made, known = pa.py_buffer(view), _arrow.get(key)
    if known is not None and (shared := pa.py_buffer(known)).equals(made):
        return shared
    _arrow[key] = view  # what Arrow holds on to
    return made
