"""The page of a link: what is asked, and buttons. No script, nothing from elsewhere."""

from __future__ import annotations

import datetime as dt
from html import escape

from cellrail.app.answering import Asked, Woke
from cellrail_state import waits

#: nothing but the page itself, its style and its forms; in no frame of anybody
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; "
    "base-uri 'none'"
)
#: the page's own field, whose content is JSON
FIELD = "_json"
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:36em;margin:3em auto;padding:0 1em}"
    "button{font:inherit;padding:.4em 1.2em;margin:.2em .4em .2em 0}"
    "textarea{font:14px monospace;width:100%;box-sizing:border-box}"
    "dt{float:left;width:7em;color:#555}dd{margin-left:7em}form{display:inline}"
)
_BUTTONS = {waits.RESUME: "Resume", waits.CANCEL: "Cancel"}
_DONE = {waits.RESUME: "resumed", waits.CANCEL: "cancelled"}


def asking(asked: Asked, url: str) -> str:
    """What a link asks of whoever opens it. Looking at it answers nothing.

    Args:
        asked: what is asked.
        url: the link itself, without a query.
    """
    facts = [("notebook", asked.flow), ("step", asked.step), ("run", asked.run_id)]
    if asked.until is not None:
        facts.append(("until", f"{_moment(asked.until)}; then it is {_then(asked.on_timeout)}"))
    listed = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts)
    if asked.closed:
        return _page("Nothing to answer", f"<dl>{listed}</dl><p>{escape(asked.closed)}</p>")
    title = "A run waits" if asked.kind == waits.SUSPEND else "A step waits to be run again"
    return _page(title, f"<dl>{listed}</dl>{_forms(asked.action, escape(url, quote=True))}")


def _forms(action: str, url: str) -> str:
    if action == waits.CANCEL:
        return f'<form method="post" action="{url}"><button>Cancel the run</button></form>'
    return (
        f'<form method="post" action="{url}"><p><label for="json">For the next step, as JSON '
        f'(may stay empty)</label><br><textarea id="json" name="{FIELD}" rows="3"></textarea></p>'
        f"<button>Resume</button></form>"
        f'<form method="post" action="{url}/cancel"><button>Cancel</button></form>'
    )


def answered(woke: Woke) -> str:
    """What came of an answer."""
    later = ": its step still runs, and the answer counts at its end" if woke.early else ""
    return _page(
        f"The run is {_DONE[woke.action]}",
        f"<p>Run {escape(woke.run_id)}, step {escape(woke.step)}{later}.</p>",
    )


def refused(message: str, hint: str = "") -> str:
    """Why something was refused."""
    more = f"<p>{escape(hint)}</p>" if hint else ""
    return _page("This cannot be done", f"<p>{escape(message)}</p>{more}")


def _page(title: str, body: str) -> str:
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="robots" content="noindex"><meta name="viewport" '
        f'content="width=device-width"><title>{escape(title)}</title><style>{_STYLE}</style>'
        f"</head><body><h1>{escape(title)}</h1>{body}</body></html>\n"
    )


def _then(on_timeout: str) -> str:
    return {waits.RESUME: "resumed", waits.CANCEL: "cancelled"}.get(on_timeout, "failed")


def _moment(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M %Z")
