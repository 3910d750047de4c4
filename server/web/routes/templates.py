"""`/workflow_templates`: the example workflows, in the form that editors open, as a pack of templates."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from aiohttp import hdrs, web

from server.web.endpoint import Gives, get
from server.web.files.names import is_file
from server.web.files.pictures import preview
from server.web.files.sending import remade_answer
from server.web.problems import Refused
from server.web.site import Json, Site

PACK = "latentloom"
PICTURES = "pictures"
QUALITY = 85


class Templates:
    """The examples, drawn for editors when they are first asked for. One for each site."""

    def __init__(self) -> None:
        self._described: Json | None = None
        self._drawn: dict[str, Any] = {}

    async def drawn(self, name: str, described: Json) -> Any:
        """An example as an editor's document. Refuses what is none, or takes nodes that are not there."""
        if self._described is not described:
            self._described, self._drawn = described, {}
        if name not in self._drawn:
            self._drawn[name] = await asyncio.to_thread(_draw, name, described)
        return self._drawn[name]


def _draw(name: str, described: Json) -> Any:
    from graph.problems import InvalidWorkflow
    from workflows.documents import EXAMPLES, document_in, examples
    from workflows.editor.editor_form import to_editor

    if name not in examples():
        raise Refused(404, f"there is no example {name!r}")
    content = (EXAMPLES / f"{name}.json").read_bytes()
    try:
        return to_editor(document_in(content, lambda: described, name).workflow, described)
    except InvalidWorkflow as error:
        raise Refused(404, f"this server lacks nodes of the example {name!r}: {error}") from error


async def list_templates() -> dict[str, list[str]]:
    """The packs of templates, and what is in each."""
    from workflows.documents import examples

    return {PACK: await asyncio.to_thread(examples)}


async def show_template(site: Site, templates: Templates, name: str) -> dict[str, Any]:
    """A template, in the form that editors open."""
    return await templates.drawn(name, await site.describe_nodes())


async def show_picture(request: web.Request, site: Site, name: str) -> Annotated[web.Response, Gives("image/jpeg")]:
    """What a template makes, if there is a picture of it."""
    path = await asyncio.to_thread(_picture, name)
    make = partial(preview, path, "jpeg", QUALITY, site.limits.picture_pixels)
    answer = await remade_answer(request, path, "jpeg", "image/jpeg", make)
    del answer.headers[hdrs.CONTENT_DISPOSITION]
    return answer


def _picture(name: str) -> Path:
    from workflows.documents import EXAMPLES, examples

    path = EXAMPLES / PICTURES / f"{name}.png"
    if name not in examples() or not is_file(path):
        raise Refused(404, f"there is no picture of the example {name!r}")
    return path


ROUTES = (
    get("/workflow_templates", list_templates),
    get(f"/workflow_templates/{PACK}/{{name}}.json", show_template),
    get(f"/workflow_templates/{PACK}/{{name}}.jpg", show_picture),
)
