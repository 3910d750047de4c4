"""The log of requests, without the keys that some of them carry in their URL."""

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from yarl import URL

from server.web.access import CALLER, KEY_PARAMETER, address_of


class AccessLog(AbstractAccessLogger):
    """One line for each request: from where, of whom, what, and how it ended."""

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Write the line."""
        caller = request.get(CALLER)
        self.logger.info(
            '%s %s "%s %s" %s %s bytes in %.1f ms',
            address_of(request),
            caller.owner if caller and caller.owner else "-",
            request.method,
            without_key(request.rel_url),
            response.status,
            response.body_length,
            time * 1000,
        )


def without_key(url: URL) -> str:
    """A URL as it may be written down."""
    return str(url.update_query({KEY_PARAMETER: "…"}) if KEY_PARAMETER in url.query else url)
