"""Answers in text, compressed for whoever can read that."""

import asyncio
import gzip

from aiohttp import hdrs, web

WORTH_COMPRESSING = 1024
LEVEL = 6
_TEXTS = ("application/json", "text/")


def takes_gzip(request: web.BaseRequest) -> bool:
    """Whether a client can read gzip, and does not say that it would rather not."""
    for coding in request.headers.get(hdrs.ACCEPT_ENCODING, "").lower().split(","):
        name, _, quality = coding.partition(";")
        if name.strip() in ("gzip", "*"):
            return quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


async def compressed(request: web.Request, answer: web.StreamResponse) -> web.StreamResponse:
    """The same answer, compressed if it is a text, long enough, and the client can read it."""
    if (
        not isinstance(answer, web.Response)
        or not isinstance(answer.body, bytes)
        or len(answer.body) < WORTH_COMPRESSING
        or not answer.content_type.startswith(_TEXTS)
        or hdrs.CONTENT_ENCODING in answer.headers
    ):
        return answer
    answer.headers.add(hdrs.VARY, hdrs.ACCEPT_ENCODING)
    if takes_gzip(request):
        answer.body = await asyncio.to_thread(gzip.compress, answer.body, LEVEL, mtime=0)
        answer.headers[hdrs.CONTENT_ENCODING] = "gzip"
    return answer
