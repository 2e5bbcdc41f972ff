"""How objects of Python itself are reduced where `pickle` would lose something of them.

* What lives outside the namespace, once per process (`os.environ`, the generator behind
  `random.random`), is named, never copied: a copy would be cut off from what it stands for.
* An exception keeps its cause and context, and is made without its own `__init__`, whose
  arguments nobody knows.
* What pickle would take apart wrongly without a word is refused with `CannotStore`.
"""

from __future__ import annotations

import copyreg
import dataclasses
import decimal
import functools
import gc
import io
import itertools
import struct
import sys
import types
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from . import arrays, frames, loading
from .errors import CannotStore

Handler = Callable[[Any], Any]

#: objects that exist once in a process, by the types they have: module and name
_ONCE: dict[tuple[str, str], tuple[tuple[str, str], ...]] = {
    ("os", "_Environ"): (("os", "environ"), ("os", "environb")),
    ("random", "Random"): (("random", "_inst"),),
    ("numpy.random.mtrand", "RandomState"): (("numpy.random.mtrand", "_rand"),),
    ("matplotlib", "RcParams"): (("matplotlib", "rcParams"),),
    ("matplotlib.cm", "ColormapRegistry"): (("matplotlib", "colormaps"),),
    ("matplotlib.colors", "ListedColormap"): tuple(
        ("seaborn.cm", name + end)
        for name in ("crest", "flare", "icefire", "mako", "rocket", "vlag")
        for end in ("", "_r")
    ),
    ("pandas._config.config", "DictWrapper"): (("pandas", "options"),),
    ("pandas", "DictWrapper"): (("pandas", "options"),),
}


def place_of(obj: object) -> tuple[str, str] | None:
    """Module and name of an object that exists once in a process; None for any other."""
    kind = type(obj)
    for module, name in _ONCE.get((kind.__module__, kind.__qualname__), ()):
        if vars(sys.modules.get(module, types)).get(name) is obj and _is_as_imported(obj):
            return module, name
    return None


def _is_as_imported(obj: object) -> bool:
    """Whether an object that exists once is what a new process makes of it, as far as that counts.

    What else stands here has a state that is kept beside the variables, or is not kept.
    """
    known = vars(obj) if type(obj).__name__ == "ListedColormap" else {}
    # what `set_bad`, `set_over` and `set_under` change
    return [known.get(f"_rgba_{at}") for at in ("bad", "over", "under") if known] in (
        [], [(0.0, 0.0, 0.0, 0.0), None, None],
    )  # fmt: skip


def _reduce_once(obj: object) -> Any:
    place = place_of(obj)
    return NotImplemented if place is None else (loading.constant, place)


def handler_for(kind: type) -> Handler | None:
    """The reducer for a type, or None where pickle's own way is right."""
    # classes of the notebook change from cell to cell
    is_own = any(base.__module__ == "__main__" for base in kind.__mro__)
    return _find_handler(kind) if is_own else _found_handler(kind)


@functools.lru_cache(maxsize=4096)
def _found_handler(kind: type) -> Handler | None:
    return _find_handler(kind)


def _find_handler(kind: type) -> Handler | None:
    if (special := _SPECIAL.get(kind)) is not None:
        return special
    for base, handler in _SPECIAL_BASES:
        if issubclass(kind, base):
            return handler
    if kind.__module__ == "itertools" and sys.version_info >= (3, 12):
        return _refuse("an iterator of itertools")
    if (kind.__module__, kind.__qualname__) in _ONCE:
        return _reduce_once
    if (builtin := _made_by_its_own_new(kind)) is not None:
        return functools.partial(_reduce_instance, builtin)
    found: Handler | None = arrays.handler_for(kind) or frames.handler_for(kind)
    return found


def _refuse(what: str) -> Handler:
    def handler(_: Any) -> Any:
        raise CannotStore(what)

    return handler


def _reduce_file(obj: Any) -> Any:
    for name in ("stdout", "stderr", "stdin"):
        if obj is getattr(sys, name):
            return loading.constant, ("sys", name)
    raise CannotStore("an open file" if not obj.closed else "a closed file")


def _reduce_module(obj: types.ModuleType) -> Any:
    name = obj.__name__
    if sys.modules.get(name) is not obj:
        raise CannotStore(f"the module {name!r}, which cannot be imported")
    if name != "__main__" and getattr(obj, "__spec__", None) is None:
        raise CannotStore(f"the module {name!r}, which was made by hand")
    return loading.import_module, (name,)


def _view_reducer(kind: str) -> Handler:
    def handler(view: Any) -> Any:
        return loading.dict_view, (gc.get_referents(view)[0], kind)

    return handler


def _reduce_proxy(proxy: Any) -> Any:
    owner = gc.get_referents(proxy)[0]
    return types.MappingProxyType, (owner if isinstance(owner, dict) else dict(proxy),)


def _reduce_weak_mapping(mapping: Any) -> Any:
    return loading.weak_mapping, (type(mapping), list(mapping.items()))


def _reduce_weakref(ref: Any) -> Any:
    if ref.__callback__ is not None:
        raise CannotStore("a weak reference with a callback")
    target = ref()
    return (
        (loading.weak_reference, (target,)) if target is not None else (loading.dead_reference, ())
    )


def _reduce_cached_property(prop: Any) -> Any:
    return loading.cached_property, (prop.func, prop.attrname)


def _reduce_context(context: decimal.Context) -> Any:
    if context is decimal.getcontext():
        return decimal.getcontext, ()
    return NotImplemented


def _reduce_exception(error: BaseException) -> Any:
    """Made as its builtin base makes it, then given what its own code gave it."""
    kind = type(error)
    made = error.__reduce_ex__(5)
    if not isinstance(made, tuple) or len(made) > 3:
        return NotImplemented
    make, args, state = made if len(made) == 3 else (*made, None)
    if make is kind and not _has_own(kind, "__reduce__", "__reduce_ex__", "__getnewargs__"):
        base = next(base for base in kind.__mro__ if not base.__flags__ & _HEAP_TYPE)
        make, args = loading.new_exception, (base, kind, args)
    links = (error.__cause__, error.__context__, error.__suppress_context__)
    full = (state, _left_out(error), links)
    return make, args, full, None, None, loading.fill_exception


def _made_by_its_own_new(kind: type) -> type | None:
    """The builtin type below a `__new__` of the notebook that pickle would call again; or None.

    A copy is to be what the object is now. `__new__` ran when the object was made: again it would
    count once more, or look for attributes of a class that is still empty (a singleton's).
    """
    if not _is_pickled_by_default(kind) or _has_own(kind, "__getnewargs__", "__getnewargs_ex__"):
        return None
    makers = [base for base in kind.__mro__ if "__new__" in vars(base)]
    if makers[0].__module__ != "__main__":
        return None
    below = next(base for base in makers if base.__module__ != "__main__")
    return None if below.__flags__ & _HEAP_TYPE else below


def _is_pickled_by_default(kind: type) -> bool:
    plain: Any = object
    made: Any = kind
    return (
        made.__reduce_ex__ is plain.__reduce_ex__
        and made.__reduce__ is plain.__reduce__
        and kind not in copyreg.dispatch_table
    )


def _reduce_instance(builtin: type, obj: Any) -> Any:
    _, (_, *args), *rest = obj.__reduce_ex__(5)
    return (loading.new_instance, (builtin, type(obj), *args), *rest)


def _left_out(error: BaseException) -> dict[str, Any]:
    """Attributes that exceptions do not pickle: those in slots, and what a name error is about."""
    names = copyreg._slotnames(type(error))  # type: ignore[attr-defined] # noqa: SLF001
    found = {name: getattr(error, name) for name in names if hasattr(error, name)}
    if isinstance(error, (AttributeError, NameError)) and error.name is not None:
        found["name"] = error.name
    return found


#: set for classes that Python code made
_HEAP_TYPE = 1 << 9


def _has_own(kind: type, *names: str) -> bool:
    """Whether a class written in Python has any of these methods."""
    heap = [base for base in kind.__mro__ if base.__flags__ & _HEAP_TYPE]
    return any(name in vars(base) for base in heap for name in names)


def _constants() -> dict[type, Handler]:
    table: dict[type, Handler] = {}
    for name in ("MISSING", "KW_ONLY", "_HAS_DEFAULT_FACTORY"):
        value = getattr(dataclasses, name)
        if not isinstance(value, type):
            table[type(value)] = functools.partial(_named, "dataclasses", name)
    return table


def _named(module: str, name: str, _: object) -> Any:
    return loading.constant, (module, name)


_SPECIAL: dict[type, Handler] = {
    types.ModuleType: _reduce_module,
    types.GeneratorType: _refuse("a generator"),
    types.CoroutineType: _refuse("a coroutine"),
    types.AsyncGeneratorType: _refuse("an asynchronous generator"),
    types.FrameType: _refuse("a frame"),
    types.TracebackType: _refuse("a traceback"),
    types.MappingProxyType: _reduce_proxy,
    functools.cached_property: _reduce_cached_property,
    memoryview: arrays.reduce_memoryview,
    weakref.ref: _reduce_weakref,
    weakref.ProxyType: _refuse("a weak proxy"),
    weakref.CallableProxyType: _refuse("a weak proxy"),
    weakref.finalize: _refuse("a finalizer"),
    weakref.WeakKeyDictionary: _reduce_weak_mapping,
    weakref.WeakValueDictionary: _reduce_weak_mapping,
    decimal.Context: _reduce_context,
    struct.Struct: lambda made: (struct.Struct, (made.format,)),
    type({}.keys()): _view_reducer("keys"),
    type({}.values()): _view_reducer("values"),
    type({}.items()): _view_reducer("items"),
    itertools.tee([])[0].__class__: _refuse("an iterator of itertools.tee"),
    **_constants(),
}
_IN_MEMORY = (io.StringIO, io.BytesIO)
_SPECIAL_BASES: Sequence[tuple[Any, Handler]] = (
    (_IN_MEMORY, lambda _: NotImplemented),
    (io.IOBase, _reduce_file),
    (types.ModuleType, _reduce_module),
    (BaseException, _reduce_exception),
)
