"""How NumPy arrays and memory views are reduced, so that shared memory is shared again.

* An array that owns its memory is one buffer plus dtype, shape and strides.
* A view is a reference to the array its base chain ends in, plus offset and strides.
* What was made on a bytearray's memory (`numpy.frombuffer`) is a reference to that bytearray.

Kinds of array that this does not understand go NumPy's own way, by value. Memory maps are
refused: their type promises a file.
"""

from __future__ import annotations

import array as array_module
import ctypes
import mmap
import pickle
import sys
from typing import Any

from . import loading, memory
from .errors import CannotStore

#: dtype kinds whose memory is plain bytes
_PLAIN = frozenset("biufcmMSUV")
#: what holds memory that others may show, too
_HOLDERS = frozenset((bytearray, array_module.array, mmap.mmap))
#: bytes up to which a copy is the quickest, and kinds of numbers of which one is made
_SMALL, _NUMBERS = 4096, frozenset("?bBhHiIlLqQefdFD")
_PICKLED_BY = ("__reduce__", "__reduce_ex__", "__setstate__")


def _order(array: Any) -> list[int]:
    return sorted(range(array.ndim), key=lambda axis: (-array.strides[axis], axis))


def root_of(array: Any) -> Any:
    """The array whose memory this one shows: itself, or the end of its chain of bases."""
    ndarray = sys.modules["numpy"].ndarray
    while True:
        base = array.base
        if type(base).__name__ == "DummyArray":  # what as_strided leaves in the chain
            base = base.base
        if type(base) is memoryview and isinstance(base.obj, ndarray):
            base = base.obj
        if not isinstance(base, ndarray):
            return array
        array = base


def _start(array: Any) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def reduce_array(array: Any) -> Any:
    """Reduce an exact `numpy.ndarray`."""
    if array.nbytes == 0:
        return NotImplemented
    if array.nbytes < _SMALL and _is_plain(array):
        # a figure holds ten thousand of these: NumPy's own way makes twice as many objects of each
        return loading.small_array, (array.tobytes(), array.dtype, *array.shape)
    root = root_of(array)
    if type(root.base) is memoryview and type(root.base.obj) in _HOLDERS:
        return _reduce_on_buffer(array, root.base.obj)
    if root is array:
        return _reduce_owner(array)
    return _reduce_view(array, root)


def _is_plain(array: Any) -> bool:
    flags = array.flags
    owns = flags.owndata and flags.writeable and flags.c_contiguous
    return owns and array.dtype.char in _NUMBERS and array.dtype.isnative


def _reduce_view(array: Any, root: Any) -> Any:
    np = sys.modules["numpy"]
    if isinstance(root, np.memmap):
        if array.flags.writeable:
            raise CannotStore("a view of a memory-mapped file")
        return NotImplemented
    known = type(root) is np.ndarray or handler_for(type(root)) is reduce_subclass
    if not known or not _in_memory_order(root):
        return NotImplemented
    offset = _start(array) - _start(root)
    if array.dtype.hasobject or root.dtype.hasobject:
        if array.dtype != root.dtype or array.dtype.kind != "O" or offset < 0:
            return NotImplemented
    elif array.dtype.kind not in _PLAIN or root.dtype.kind not in _PLAIN:
        return NotImplemented
    args = (root, array.dtype, array.shape, array.strides, offset, bool(array.flags.writeable))
    return loading.array_view, args


def _reduce_on_buffer(array: Any, owner: Any) -> Any:
    """What `numpy.frombuffer` made of a bytearray shows that bytearray's memory."""
    if array.dtype.kind not in _PLAIN:
        return NotImplemented
    if isinstance(owner, mmap.mmap):
        if array.flags.writeable:
            raise CannotStore("a view of a memory-mapped file")
        return NotImplemented
    offset = _start(array) - _address(memoryview(owner))
    writeable = bool(array.flags.writeable)
    return memory.array_on_buffer, (
        owner, array.dtype, array.shape, array.strides, offset, writeable,
    )  # fmt: skip


def reduce_subclass(array: Any) -> Any:
    """Reduce an array of a subclass, with its attributes: NumPy's own way would lose them."""
    np = sys.modules["numpy"]
    if array.nbytes == 0 or array.dtype.hasobject:
        return NotImplemented
    plain = np.ndarray.view(array, np.ndarray)
    root = root_of(array)
    made = _reduce_owner(plain) if root is array else reduce_array(plain)
    if made is NotImplemented:
        return NotImplemented
    make, args = made
    state = getattr(array, "__dict__", {})
    return memory.array_of, (type(array), make, args), state, None, None, loading.fill_dict


def _in_memory_order(array: Any) -> bool:
    return bool(array.transpose(_order(array)).flags.c_contiguous)


def _reduce_owner(array: Any) -> Any:
    np = sys.modules["numpy"]
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
        if not view.nbytes or not whole.c_contiguous:
            raise CannotStore("an empty memoryview, or one of memory with gaps")
        offset = _address(view) - _address(whole)
    span = slice(offset, offset + view.nbytes)
    args = (owner, span, view.format, list(shape), view.readonly)
    return loading.memory_view, args


class _PyBuffer(ctypes.Structure):
    """What Python tells of a buffer: `Py_buffer`, with its address first."""

    _fields_ = (("buf", ctypes.c_void_p), ("obj", ctypes.py_object), ("rest", ctypes.c_ssize_t * 9))


def _address(view: memoryview) -> int:
    """Where a view begins, be it writable or not."""
    buffer = _PyBuffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(view), ctypes.byref(buffer), 0)
    try:
        return int(buffer.buf or 0)
    finally:
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(buffer))


def refuse_memmap(_: Any) -> Any:
    """Refuse a memory map."""
    raise CannotStore("a memory-mapped file")


def handler_for(kind: type) -> Any:
    """The reducer for a type, or None where this module has none."""
    np = sys.modules.get("numpy")
    if np is None or not issubclass(kind, np.ndarray):
        return None
    if kind is np.ndarray:
        return reduce_array
    if issubclass(kind, np.memmap):
        return refuse_memmap
    ma = sys.modules.get("numpy.ma")
    if ma is not None and kind is ma.MaskedArray:
        return reduce_masked
    if all(getattr(kind, name) is getattr(np.ndarray, name) for name in _PICKLED_BY):
        return reduce_subclass
    return None
