"""Answers: JSON that is always valid, and what a client may keep and ask about again."""

import json
from collections.abc import Mapping
from typing import Any

from aiohttp import ETag, hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.web_request import BaseRequest
from pydantic_core import PydanticSerializationError, to_json

Headers = Mapping[str, str]


def json_bytes(value: Any) -> bytes:
    """As JSON. Numbers that JSON does not have become null."""
    try:
        return to_json(value, inf_nan_mode="null")
    except PydanticSerializationError:
        # Halves of letters, as in names of files that are no UTF-8, which only escapes can express.
        return json.dumps(value).encode()


def json_answer(value: Any, status: int = 200, headers: Headers | None = None) -> web.Response:
    """An answer in JSON: anything that pydantic can serialise."""
    return web.Response(body=json_bytes(value), status=status, headers=headers, content_type="application/json")


def unchanged(request: web.BaseRequest, etag: str) -> bool:
    """Whether the client says that it has this already."""
    known = request.if_none_match or ()
    return any(each.value in (etag, "*") for each in known)


def kept_answer(request: web.Request, body: bytes, etag: str, headers: Headers) -> web.Response:
    """An answer that the client may keep, and need not be sent again while `etag` is the same."""
    answer = web.Response(status=304) if unchanged(request, etag) else web.Response(body=body)
    answer.headers.update(headers)
    answer.headers.setdefault(hdrs.CACHE_CONTROL, "no-cache")
    # The same in another encoding counts as the same.
    answer.etag = ETag(etag, is_weak=True)
    return answer


class FileAnswer(web.FileResponse):
    """A file, with ETag, Last-Modified and ranges, and never another file in its place."""

    async def prepare(self, request: BaseRequest) -> AbstractStreamWriter | None:
        """Send the head, and the file."""
        # Where a client takes gzip, aiohttp would look for `name.gz` and send that: here it would be somebody's
        # file of that name.
        headers = request.headers.copy()
        headers.popall(hdrs.ACCEPT_ENCODING, None)
        return await super().prepare(request.clone(headers=headers))
