"""What control flow asks of a kernel between cells: conditions, items, what a loop collects.

Items and collected values are roots of the checkpoint (`Loop[score]`, `Loop[score].total[3]`), so
that a restart finds them, sharing what they share with the notebook's own variables.
"""

from __future__ import annotations

import datetime as dt
import decimal
import functools
import traceback
import types
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cellrail.run import shellspace
from cellrail_state.ambient import spread_generators

#: an item, while it is taken apart
_ITEM = "__cellrail_item__"
#: kinds of items that are their own keys
_OWN_KEYS = (str, int, float, bool, type(None), dt.date, dt.timedelta, decimal.Decimal, uuid.UUID)


class Turns:
    """Carries out, in one shell, what is asked for between cells."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        #: the exception that the last cell ended with
        self.raised: BaseException | None = None
        #: the exception that the last expression ended with
        self.broken: BaseException | None = None
        #: names that were bound to an item since somebody asked
        self.bound: set[str] = set()

    def failed(self, raised: BaseException | None, name: str) -> None:
        """A cell has failed.

        Args:
            raised: what it raised.
            name: the variable that the flow goes on with; "" where it does not.
        """
        self.raised = raised
        if name:
            self._shell.user_ns[name] = raised

    # --- expressions -------------------------------------------------------------------------

    def evaluate(
        self, order: Mapping[str, Any], check: Callable[[], None] = lambda: None
    ) -> dict[str, Any]:
        """Whether an expression is true.

        Args:
            order: `source` and `purpose`; with `failed`, `error` is what the last cell raised.
            check: called when it was evaluated; what it raises, the expression has raised.
        """
        purpose, source = order["purpose"], order["source"]

        def checked() -> dict[str, Any]:
            value = bool(self._value(source, purpose))
            check()
            return {"value": value}

        if not order.get("failed"):
            return self._attempt(purpose, checked)
        space, absent = self._shell.user_ns, object()
        before = space.get("error", absent)
        space["error"] = self.raised
        try:
            return self._attempt(purpose, lambda: {"value": bool(self._value(source, purpose))})
        finally:
            if before is absent:
                space.pop("error", None)
            else:
                space["error"] = before

    def items(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Take the items of a loop; their keys.

        Args:
            order: `source`, `root`, `target` that is bound to an item, and `key` (an expression);
                with `bind` it is bound to the item at that place.
        """
        return self._attempt("foreach", lambda: {"keys": self._keys(order)})

    def _keys(self, order: Mapping[str, Any]) -> list[str]:
        items = tuple(self._value(order["source"], "foreach"))
        if order["key"]:
            keys = [self._key(item, order) for item in items]
            twice, count = next(iter(Counter(keys).most_common(1)), ("", 0))
            if count > 1:
                message = f"--key {order['key']}: {twice!r} is the key of two items"
                raise ValueError(message)
        else:
            keys = _default_keys(items)
        shellspace.loop_roots(self._shell)[order["root"]] = items
        if "bind" in order:
            self._bind(order["target"], items[order["bind"]])
        return keys

    def _key(self, item: object, order: Mapping[str, Any]) -> str:
        self._bind(order["target"], item)
        key = self._value(order["key"], "key")
        if not isinstance(key, _OWN_KEYS):
            message = f"--key {order['key']}: a {type(key).__name__} is no key; make it a string"
            raise TypeError(message)
        return str(key)

    def _value(self, source: str, purpose: str) -> Any:
        code = compile(source, f"<--{purpose}>", "eval")
        return eval(code, self._shell.user_ns)  # noqa: S307 - it is the notebook's own code

    def _attempt(self, purpose: str, act: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        try:
            return act()
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001 - user's code
            self.broken = error
            lines = traceback.format_exception(type(error), error, error.__traceback__)
            own = [line for line in lines if f"<--{purpose}>" in line or "ipykernel_" in line]
            told = [lines[0], *own, *traceback.format_exception_only(error)]
            return {
                "raised": {"name": type(error).__name__, "value": str(error), "traceback": told}
            }

    # --- turns -------------------------------------------------------------------------------

    def perform(self, orders: Sequence[Mapping[str, Any]]) -> None:
        """What has to be done before a cell or a command."""
        for order in orders:
            if order["what"] == "enter":
                items: Any = shellspace.loop_roots(self._shell)[order["root"]]
                self._bind(order["target"], items[order["index"]])
                if order.get("spread"):
                    spread_generators(order["spread"])
            else:
                self._gather(order)

    def _bind(self, target: str, item: Any) -> None:
        found = {target: item}
        if not target.isidentifier():
            found = {_ITEM: item}
            try:
                exec(_assignment(target), {}, found)  # noqa: S102 - it names variables alone
            except (TypeError, ValueError) as error:
                raise type(error)(f"--foreach {target}: {error}") from None
            del found[_ITEM]
        self._shell.user_ns.update(found)
        self.bound.update(found)

    def _gather(self, order: Mapping[str, Any]) -> None:
        roots = shellspace.loop_roots(self._shell)
        for name in order["collect"]:
            value = None if name in order["missing"] else self._shell.user_ns.get(name)
            roots[f"{order['root']}.{name}[{order['index']}]"] = value

    def gather_all(
        self, root: str, names: Sequence[str], gathered: Sequence[Mapping[str, Any]]
    ) -> None:
        """Take what items in kernels of their own left, in order.

        Args:
            root: the loop's.
            names: what it collects.
            gathered: values by name, of each item; none of one that was skipped.
        """
        roots = shellspace.loop_roots(self._shell)
        for index, values in enumerate(gathered):
            for name in names:
                roots[f"{root}.{name}[{index}]"] = values.get(name)

    def absent(self, order: Mapping[str, Any]) -> list[str]:
        """The names that a loop collects, and that none of its turns has bound.

        Args:
            order: `root`, `count` of turns, and names that some turn `expects` to be bound.
        """
        return [
            name
            for name in order["expects"]
            if name not in self._shell.user_ns
            and all(value is None for value in self._collected(order, name))
        ]

    def leave(self, order: Mapping[str, Any]) -> None:
        """The loop has ended: bind what it collected.

        Args:
            order: `root`, `collect` (names) and `count` of turns.
        """
        roots = shellspace.loop_roots(self._shell)
        for name in order["collect"]:
            self._shell.user_ns[name] = self._collected(order, name)
        for root in [r for r in roots if r == order["root"] or r.startswith(f"{order['root']}.")]:
            del roots[root]

    def _collected(self, order: Mapping[str, Any], name: str) -> list[Any]:
        roots = shellspace.loop_roots(self._shell)
        return [roots.get(f"{order['root']}.{name}[{n}]") for n in range(order["count"])]


@functools.lru_cache(maxsize=64)
def _assignment(target: str) -> types.CodeType:
    return compile(f"{target} = {_ITEM}", "<--foreach>", "exec")


def _default_keys(items: Sequence[object]) -> list[str]:
    """Items that are short and plain are their own keys; others are known by their place."""
    if all(isinstance(item, _OWN_KEYS) for item in items):
        keys = [str(item) for item in items]
        if len(set(keys)) == len(keys) and all(0 < len(key) <= 100 for key in keys):
            return keys
    return [f"#{place}" for place in range(len(items))]
