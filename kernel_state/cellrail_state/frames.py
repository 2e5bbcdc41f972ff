"""How objects of pandas, Arrow, polars and others are reduced, where their own way loses.

* A pandas block carries the record of who else uses its memory (`Block.refs`): without it two
  frames that share blocks lazily would overwrite one another after a restore.
* Arrow memory is written whole and loaded once, whatever the number of slices that show it.
* A plan of polars with a function of the notebook is refused: polars would freeze its globals.
"""

from __future__ import annotations

import copyreg
import itertools
import pickle
import sys
from collections.abc import Callable
from typing import Any

from . import loading, memory
from .errors import CannotStore

#: bytes that Arrow's padding may add to a buffer
_SLACK = 1024
#: what polars writes where a plan holds a function that is not of a library
_OF_THE_NOTEBOOK = (b"cloudpickle.cloudpickle", b"__main__")


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


def reduce_arrow_buffer(buffer: Any) -> Any:
    """Reduce Arrow memory: slices of one table are pickled with the whole, and share it again."""
    if buffer.size < _SLACK or not buffer.is_cpu:
        return NotImplemented
    return memory.arrow_buffer, (pickle.PickleBuffer(buffer),)


def reduce_callback_registry(registry: Any) -> Any:
    """Reduce matplotlib's registry, whose own way counts up: no two copies would be equal."""
    told = repr(registry._cid_gen)  # noqa: SLF001 - `count(5)`: the only way to see it
    number = told.removeprefix("count(").removesuffix(")")
    if not number.isdecimal():
        return NotImplemented
    state = registry.__getstate__()
    del state["_cid_gen"]
    state["_cid_gen"] = int(number)  # the last, as in a copy
    registry._cid_gen = itertools.count(int(number))  # noqa: SLF001
    return copyreg.__newobj__, (type(registry),), state  # type: ignore[attr-defined]


def reduce_polars_plan(plan: Any) -> Any:
    """Reduce a `LazyFrame` or an expression of polars."""
    made = plan.__reduce_ex__(5)
    if isinstance(made[2], bytes) and any(word in made[2] for word in _OF_THE_NOTEBOOK):
        raise CannotStore("a plan of polars with a function of the notebook")
    return made


def reduce_bunch(bunch: Any) -> Any:
    """Reduce what scikit-learn's data sets come in: its own way forgets its `__dict__`."""
    return *bunch.__reduce_ex__(5)[:5], loading.fill_dict


def _pandas(kind: type) -> Any:
    modules = sys.modules
    internals = modules["pandas._libs.internals"]
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
    return None


#: by the module and the name of their type
_BY_NAME: dict[tuple[str, str], Callable[[Any], Any]] = {
    ("pyarrow.lib", "Buffer"): reduce_arrow_buffer,
    ("polars.lazyframe.frame", "LazyFrame"): reduce_polars_plan,
    ("polars.expr.expr", "Expr"): reduce_polars_plan,
    ("sklearn.utils._bunch", "Bunch"): reduce_bunch,
    ("matplotlib.cbook", "CallbackRegistry"): reduce_callback_registry,
}


def handler_for(kind: type) -> Any:
    """The reducer for a type, or None where this module has none."""
    if "pandas._libs.internals" in sys.modules and (found := _pandas(kind)) is not None:
        return found
    return _BY_NAME.get((kind.__module__, kind.__qualname__))
