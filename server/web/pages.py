"""Pages of this server's own: one look, no scripts, and nothing from elsewhere."""

import base64
from hashlib import sha256
from html import escape

from aiohttp import web

STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 18%, transparent);
  --soft: color-mix(in srgb, currentColor 62%, transparent); --wash: color-mix(in srgb, currentColor 5%, transparent); }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 2.5rem 1.25rem 5rem; max-width: 60rem; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; } h2 { font-size: 1.1rem; margin: 2.5rem 0 .5rem; }
p { margin: .25rem 0 1rem; } a { color: inherit; } code, pre { font: .875em/1.5 ui-monospace, monospace; }
.soft { color: var(--soft); } .wrong { color: #c0392b; }
details { border: 1px solid var(--line); border-radius: .5rem; margin: .5rem 0; }
summary { cursor: pointer; padding: .6rem .9rem; display: flex; gap: .9rem; align-items: baseline; flex-wrap: wrap; }
summary code { font-weight: 600; overflow-wrap: anywhere; } details > div { padding: 0 .9rem .9rem; overflow-x: auto; }
.method { min-width: 4.5rem; font: 600 .8rem ui-monospace, monospace; }
table { border-collapse: collapse; width: 100%; font-size: .925rem; } th { font-weight: 600; text-align: left; }
th, td { padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
pre { background: var(--wash); border-radius: .4rem; padding: .75rem; overflow-x: auto; margin: .5rem 0; }
form { display: grid; gap: .75rem; max-width: 24rem; margin-top: 1.5rem; }
input, button { font: inherit; padding: .55rem .75rem; border-radius: .4rem; border: 1px solid var(--line);
  background: transparent; color: inherit; } button { cursor: pointer; background: var(--wash); font-weight: 600; }
"""

_DIGEST = base64.b64encode(sha256(STYLE.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; style-src 'sha256-{_DIGEST}'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)


def page(title: str, body: str, status: int = 200) -> web.Response:
    """A page. The body is HTML; whatever in it came from outside has to be escaped."""
    text = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>'
        f"<body>{body}</body></html>\n"
    )
    return web.Response(text=text, status=status, content_type="text/html", headers={"Content-Security-Policy": POLICY})
