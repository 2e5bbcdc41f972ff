"""Tables of text, for terminals and as HTML. The one place of the Python code that escapes."""

from __future__ import annotations

import datetime as dt
import html
import re
from collections.abc import Collection, Mapping
from typing import ClassVar, Generic, TypeVar

import msgspec

R = TypeVar("R")
#: so many members of a field are told in a line
_FEW = 3
#: fields of records that hold a moment, in seconds since the epoch
_MOMENTS = frozenset({"created", "ended", "started", "time"})
_NOTHING = "nothing"


def escape(value: object) -> str:
    """A value as HTML text, whatever it holds."""
    return html.escape(str(value), quote=True)


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of text under headings."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...] = ()
    #: what is said instead of rows
    empty: str = "nothing yet"

    def text(self) -> str:
        """As aligned columns."""
        if not self.rows:
            return f"{self.title}: {self.empty}"
        lines = [self.headings, *(tuple(_line(cell) for cell in row) for row in self.rows)]
        widths = [max(len(line[place]) for line in lines) for place in range(len(self.headings))]
        return "\n".join(
            [self.title, *("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)]
        )

    def html(self) -> str:
        """As a table."""
        head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in self.headings)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
            for row in self.rows
        )
        if not self.rows:
            body = f'<tr><td colspan="{len(self.headings)}">{escape(self.empty)}</td></tr>'
        return (
            f"<table><caption>{escape(self.title)}</caption><thead><tr>{head}</tr></thead>"
            f"<tbody>{body}</tbody></table>"
        )


class Shown:
    """Of a record that people are given: a notebook shows it as a table of its fields."""

    __slots__ = ()
    __struct_fields__: ClassVar[tuple[str, ...]]

    def __repr__(self) -> str:
        known = {name: _brief(name, getattr(self, name)) for name in self.__struct_fields__}
        told = ", ".join(f"{name} {value}" for name, value in known.items() if value)
        return f"<{_words(type(self))}: {told or _NOTHING}>"

    def _repr_html_(self) -> str:
        known = {name: _told(name, getattr(self, name)) for name in self.__struct_fields__}
        return facts(type(self).__name__, known).html()


class Listing(list[R], Generic[R]):
    """Records as a listing: a table where it is shown, records where it is used."""

    title: ClassVar[str]
    headings: ClassVar[tuple[str, ...]]
    empty: ClassVar[str]

    def row(self, record: R) -> tuple[str, ...]:
        """A record's line, as the headings say."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return "\n".join(map(repr, self)) or self.empty

    def _repr_html_(self) -> str:
        return self.table().html()

    def table(self, title: str = "") -> Table:
        """The table; with another title where one is given."""
        rows = tuple(map(self.row, self))
        return Table(title=title or self.title, headings=self.headings, rows=rows, empty=self.empty)


def facts(title: str, known: Mapping[str, object]) -> Table:
    """What is known of one thing, line by line; what is empty is left out."""
    rows = tuple((name, str(value)) for name, value in known.items() if value not in (None, ""))
    return Table(title=title, headings=("what", "value"), rows=rows, empty=_NOTHING)


def _words(kind: type) -> str:
    """A class's name in words."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.__name__).lower()


def _brief(name: str, value: object) -> str:
    """A field's value for a line; "" for one that holds nothing."""
    if value is False or value is None:
        return ""
    if isinstance(value, Collection) and not isinstance(value, str | bytes) and len(value) > _FEW:
        return str(len(value))
    return _line(str(_told(name, value)))


def _told(name: str, value: object) -> object:
    """A field's value in words; "" for one that holds nothing."""
    if isinstance(value, float):
        if name not in _MOMENTS:
            return f"{value:.4g}"
        moment = dt.datetime.fromtimestamp(value).astimezone()
        return moment.isoformat(" ", "seconds") if value else ""
    if isinstance(value, Mapping):
        if name == "secrets":
            return ", ".join(f"{key} = ***" for key in value)
        return ", ".join(f"{key} = {held}" for key, held in value.items())
    if isinstance(value, Collection) and not isinstance(value, str | bytes):
        return ", ".join(map(str, value))
    return value


def _line(cell: str) -> str:
    """A cell in one line, without what moves a terminal's cursor."""
    return "".join(c if c.isprintable() else " " for c in cell)
