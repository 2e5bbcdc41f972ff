"""How NumPy arrays and pandas blocks are reduced, so that shared memory is shared again.

* An array that owns its memory is one buffer plus dtype, shape and strides.
* A view is a reference to the array its base chain ends in, plus offset and strides.
* A pandas block carries the record of who else uses its memory (`Block.refs`): without it two
  frames that share blocks lazily would overwrite one another after a restore.

Kinds of array that this does not understand go NumPy's own way, by value. Memory maps are
refused: their type promises a file.
"""

from __future__ import annotations

import copyreg
import ctypes
import itertools
import pickle
import sys
from typing import Any

from . import loading
from .errors import CannotStore

#: bytes that Arrow's padding may add to a buffer
_SLACK = 1024
#: dtype kinds whose memory is plain bytes
_PLAIN = frozenset("biufcmMSUV")


def _order(array: Any) -> list[int]:
    return sorted(range(array.ndim), key=lambda axis: (-array.strides[axis], axis))


def root_of(array: Any) -> Any:
    """The array whose memory this one shows: itself, or the end of its chain of bases."""
    ndarray = sys.modules["numpy"].ndarray
    while True:
        base = array.base
        if type(base).__name__ == "DummyArray":  # what as_strided leaves in the chain
            base = base.base
        if not isinstance(base, ndarray):
            return array
        array = base


def _start(array: Any) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def reduce_array(array: Any) -> Any:  # noqa: PLR0911 - one line per kind
    """Reduce an exact `numpy.ndarray`."""
    np = sys.modules["numpy"]
    root = root_of(array)
    if isinstance(root, np.memmap):
        if array.flags.writeable:
            raise CannotStore("a view of a memory-mapped file")
        return NotImplemented
    if array.nbytes == 0:
        return NotImplemented
    if root is array:
        return _reduce_owner(np, array)
    if type(root) is not np.ndarray or not _in_memory_order(root):
        return NotImplemented
    offset = _start(array) - _start(root)
    if array.dtype.hasobject or root.dtype.hasobject:
        if array.dtype != root.dtype or array.dtype.kind != "O" or offset < 0:
            return NotImplemented
    elif array.dtype.kind not in _PLAIN or root.dtype.kind not in _PLAIN:
        return NotImplemented
    args = (root, array.dtype, array.shape, array.strides, offset, bool(array.flags.writeable))
    return loading.array_view, args


def _in_memory_order(array: Any) -> bool:
    return bool(array.transpose(_order(array)).flags.c_contiguous)


def _reduce_owner(np: Any, array: Any) -> Any:
    if array.dtype.hasobject or array.dtype.kind not in _PLAIN or not _in_memory_order(array):
        return NotImplemented
    raw: Any
    writeable = bool(array.flags.writeable)
    if not writeable and array.flags.owndata:
        # a view made before the flag was cleared may still write: the copy's memory must allow it
        raw = (ctypes.c_char * array.nbytes).from_address(_start(array))
    else:
        raw = array.transpose(_order(array)).reshape(-1).view(np.uint8)
    args = (pickle.PickleBuffer(raw), array.dtype, array.shape, array.strides)
    return loading.array, (args if writeable else (*args, False))


def reduce_masked(array: Any) -> Any:
    """Reduce an exact `numpy.ma.MaskedArray`."""
    state = vars(array)
    mask = state.get("_mask")
    extra = (dict(state.get("_basedict") or {}), dict(state.get("_optinfo") or {}))
    fill = state.get("_fill_value")
    return loading.masked_array, (array.data, mask, fill, bool(array.hardmask), extra)


def reduce_memoryview(view: memoryview) -> Any:
    """Reduce a view of the memory of a bytearray, bytes, array or NumPy array."""
    owner: Any = view.obj
    shape = view.shape
    if shape is None or not view.c_contiguous or len(view.format.lstrip("@")) != 1:
        raise CannotStore("a memoryview that is not contiguous")
    whole = memoryview(owner)
    offset = 0
    if view.nbytes != whole.nbytes:
        if view.readonly or whole.readonly or not view.nbytes or not whole.c_contiguous:
            raise CannotStore("a memoryview of a part of read-only memory")
        offset = _address(view) - _address(whole)
    span = slice(offset, offset + view.nbytes)
    args = (owner, span, view.format, list(shape), view.readonly)
    return loading.memory_view, args


def _address(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view.cast("B")))


def refuse_memmap(_: Any) -> Any:
    """Refuse a memory map."""
    raise CannotStore("a memory-mapped file")


def reduce_block(block: Any) -> Any:
    """Reduce a pandas block."""
    return loading.block, (block.values, block.mgr_locs.indexer, block.ndim, block.refs)


def reduce_series_manager(manager: Any) -> Any:
    """Reduce what a Series holds; pandas' own way would lose the block's refs."""
    return loading.series_manager, (manager.blocks[0], manager.axes[0])


def reduce_block_refs(_: Any) -> Any:
    """Reduce pandas' record of shared block memory: only its identity matters."""
    return loading.block_refs, ()


def reduce_index(index: Any) -> Any:
    """Reduce a pandas index that may sit on a block's memory."""
    refs = index._references  # noqa: SLF001 - the only way to see it
    if refs is None or type(index).__name__ == "RangeIndex" or not refs.has_reference():
        return NotImplemented
    make, args, *_ = index.__reduce__()
    return loading.index, (make, args, refs)


def reduce_arrow_array(array: Any) -> Any:
    """Reduce a pandas array over Arrow memory, chunk by chunk: pandas' own way copies all of it."""
    chunks = array._pa_array.chunks  # noqa: SLF001 - there is no other name for it
    # of a slice pickle would write the whole that it was cut from; pandas copies that one out
    whole = all(c.offset == 0 and c.get_total_buffer_size() <= c.nbytes + _SLACK for c in chunks)
    if not chunks or not whole:
        return NotImplemented
    state = {**vars(array), "_pa_array": chunks}
    if "_cache" in state:  # what can be computed again
        state["_cache"] = {}
    return copyreg.__newobj__, (type(array),), state  # type: ignore[attr-defined]


def reduce_callback_registry(registry: Any) -> Any:
    """Reduce matplotlib's registry, whose own way counts up: no two copies would be equal."""
    told = repr(registry._cid_gen)  # noqa: SLF001 - `count(5)`: the only way to see it
    number = told.removeprefix("count(").removesuffix(")")
    if not number.isdecimal():
        return NotImplemented
    state = {**registry.__getstate__(), "_cid_gen": int(number)}
    registry._cid_gen = itertools.count(int(number))  # noqa: SLF001
    return copyreg.__newobj__, (type(registry),), state  # type: ignore[attr-defined]


def handler_for(kind: type) -> Any:  # noqa: PLR0911 - one line per kind
    """The reducer for a type, or None where this module has none."""
    modules = sys.modules
    np = modules.get("numpy")
    if np is not None:
        if kind is np.ndarray:
            return reduce_array
        if issubclass(kind, np.memmap):
            return refuse_memmap
        ma = modules.get("numpy.ma")
        if ma is not None and kind is ma.MaskedArray:
            return reduce_masked
    internals = modules.get("pandas._libs.internals")
    if internals is not None:
        if kind is internals.BlockValuesRefs:
            return reduce_block_refs
        if issubclass(kind, internals.Block):
            return reduce_block
        if kind.__name__ == "SingleBlockManager" and issubclass(
            kind, modules["pandas.core.internals.managers"].SingleBlockManager
        ):
            return reduce_series_manager
        if issubclass(kind, modules["pandas"].Index):
            return reduce_index
    arrow = modules.get("pandas.core.arrays.arrow.array")
    if arrow is not None and issubclass(kind, arrow.ArrowExtensionArray):
        return reduce_arrow_array
    cbook = modules.get("matplotlib.cbook")
    if cbook is not None and kind is cbook.CallbackRegistry:
        return reduce_callback_registry
    return None
