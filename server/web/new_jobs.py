"""Jobs for the queue: what is kept of a workflow that was examined, and of how it is to be run."""

from collections.abc import Mapping
from itertools import islice
from typing import Any, cast

from pydantic import TypeAdapter

from graph.problems import same_name
from graph.workflow import NODES_AT_ONCE, Workflow
from server.database.documents import Document as Text
from server.database.errors import WrongRequest
from server.database.jobs import ENDINGS, LONGEST_LABEL, Ending, NewJob, NewWebhook
from server.web.acceptance import Accepted
from server.web.job_forms import STATUS
from server.web.library import Shelf
from server.web.narrator import milliseconds
from server.web.prompt_errors import wrong_request
from server.web.requests import Submission, Webhook
from workflows.documents import Document, carried

Json = dict[str, Any]
SECRETS = ("auth_token_comfy_org", "api_key_comfy_org")
"""Parts of `extra_data` that nobody is shown."""

_WORKFLOW: TypeAdapter[Workflow] = TypeAdapter(Workflow)


def new_job(request: Submission, document: Document, accepted: Accepted, owner: str, shelf: Shelf) -> NewJob:
    """The job that an examined workflow becomes. Raises NotTaken."""
    extra_data = dict(request.extra_data)
    secret = {name: extra_data.pop(name) for name in SECRETS if name in extra_data}
    client_id = request.client_id or _text(extra_data.get("client_id"))
    pnginfo = pnginfo_of(extra_data) or dict(document.extra)
    if "workflow" in pnginfo and accepted.workflow is not document.workflow:
        pnginfo = carried(Document(document.workflow, pnginfo), accepted.workflow, shelf.describe)
    if pnginfo:
        extra_data["extra_pnginfo"] = pnginfo
    if client_id is not None:
        extra_data["client_id"] = client_id
    extra_data["create_time"] = milliseconds()
    webhook = request.webhook
    try:
        return NewJob(
            workflow=_text_of(accepted.workflow),
            owner=owner,
            client_id=client_id,
            priority=request.priority,
            number=request.number,
            front=request.front,
            targets=accepted.targets,
            extra=Text.of(extra_data),
            secret=secret,
            workflow_id=_workflow_id(pnginfo),
            label=_label(accepted.workflow),
            webhook=None if webhook is None else _webhook(webhook),
        )
    except WrongRequest as error:
        raise wrong_request("The request cannot be stored", str(error)) from error


def _webhook(asked: Webhook) -> NewWebhook:
    endings: list[Ending] = [ending for ending in ENDINGS if asked.events is None or STATUS[ending] in asked.events]
    return NewWebhook(url=asked.url, secret=asked.secret, endings=endings)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value and len(value) <= 1000 else None


def pnginfo_of(extra_data: Mapping[str, Any]) -> Json:
    """The documents that pictures carry beside the workflow."""
    found: object = extra_data.get("extra_pnginfo")
    return dict(cast("Json", found)) if isinstance(found, dict) else {}


def _workflow_id(pnginfo: Mapping[str, Any]) -> str | None:
    workflow: object = pnginfo.get("workflow")
    return _text(cast("Json", workflow).get("id")) if isinstance(workflow, dict) else None


def _text_of(workflow: Workflow) -> Text:
    entries = iter(workflow.items())
    texts: list[str] = []
    # In pieces: while one is written no other thread can do anything.
    while some := dict(islice(entries, NODES_AT_ONCE)):
        texts.append(Text.of(_WORKFLOW.dump_python(some)).text[1:-1])
    return Text(f"{{{','.join(texts)}}}")


def _label(workflow: Workflow) -> str:
    """What a search finds: the texts that people wrote, and the titles that say more than the node's class."""
    texts: dict[str, None] = {}
    titles: dict[str, None] = {}
    for used in workflow.values():
        texts.update((text, None) for text in used.inputs.values() if isinstance(text, str) and " " in text)
        if used.title and not same_name(used.title, used.class_type):
            titles[used.title] = None
        if len(texts) + len(titles) > LONGEST_LABEL:
            break
    return " · ".join((*texts, *titles))[:LONGEST_LABEL]
