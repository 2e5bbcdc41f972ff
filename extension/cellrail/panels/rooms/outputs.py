"""What a cell has shown, as pieces that the browser can draw without parsing markup of ours.

HTML goes as it is: the browser shows it in a frame without scripts. Pictures go as data URLs.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

#: characters of a text, and of HTML or a picture, that are sent to the browser at most
_TEXT, _RICH = 60_000, 3_000_000
_PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")
#: what only scripts show: the text beside it is shown instead
_SCRIPTS = ("application/vnd.jupyter.widget-view+json", "application/javascript")


def pieces_of(outputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Outputs as nbformat has them, as pieces: `{kind, …}` in order."""
    return [piece for output in outputs for piece in _pieces(output)]


def _pieces(output: Mapping[str, Any]) -> list[dict[str, Any]]:
    kind = output.get("output_type")
    if kind == "stream":
        name = "stderr" if output.get("name") == "stderr" else "stdout"
        return [{"kind": "text", "name": name, "text": _middle(_joined(output.get("text")))}]
    if kind == "error":
        return [{"kind": "error", "text": _middle("\n".join(output.get("traceback") or []))}]
    if kind in {"display_data", "execute_result"}:
        return [_rich(output.get("data") or {})]
    return []


def _rich(data: Mapping[str, Any]) -> dict[str, Any]:
    plain = _middle(_joined(data.get("text/plain")))
    scripted = any(kind in data for kind in _SCRIPTS)
    source = _picture(data)
    if source:
        return {"kind": "picture", "src": source, "text": plain}
    markup = _joined(data.get("text/html"))
    if markup and not scripted and len(markup) <= _RICH:
        return {"kind": "html", "html": markup, "text": plain}
    written = _joined(data.get("text/markdown"))
    if written and len(written) <= _RICH:
        return {"kind": "html", "html": _marked_up(written), "text": plain}
    plain = _middle(_joined(data.get("text/latex"))) or plain
    if plain or not data:
        return {"kind": "text", "name": "result", "text": plain}
    if scripted:
        return {"kind": "note", "text": "this output needs the scripts of its notebook"}
    return {"kind": "note", "text": f"an output of the kind {', '.join(sorted(data))[:200]}"}


def _marked_up(text: str) -> str:
    """Markdown as HTML, tables too; HTML in it stays, as in a notebook."""
    from markdown_it import MarkdownIt

    made: str = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    return made


def _picture(data: Mapping[str, Any]) -> str:
    """A picture as a data URL; "" where there is none."""
    for kind in _PICTURES:
        text = _joined(data.get(kind)).replace("\n", "")
        if text and len(text) <= _RICH:
            return f"data:{kind};base64,{text}"
    drawing = _joined(data.get("image/svg+xml"))
    if not drawing or len(drawing) > _RICH:
        return ""
    # as a picture, not as part of the page: nothing in it runs
    return f"data:image/svg+xml;base64,{base64.b64encode(drawing.encode()).decode()}"


def _joined(text: Any) -> str:
    if isinstance(text, str):
        return text
    return "".join(map(str, text)) if isinstance(text, list) else ""


def _middle(text: str) -> str:
    """Text without its middle, where it is very long."""
    if len(text) <= _TEXT:
        return text
    left = len(text) - _TEXT
    return f"{text[: _TEXT // 2]}\n… {left:,} characters are left out here …\n{text[-_TEXT // 2 :]}"
