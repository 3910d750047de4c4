"""From what a client sends to jobs for the queue: read, changed as asked, examined. Too slow for the event loop."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from graph.collector import collector_paused
from graph.problems import InvalidWorkflow, Problem
from graph.workflow import Workflow, read
from server.database.jobs import Claim, NewJob, is_job_id
from server.overrides import WrongOverride, override
from server.web.acceptance import Accepted, Refused, examine
from server.web.files.owner_folders import OwnerFolders
from server.web.files.staging import StagedFile
from server.web.inline_files import decoded, keep, refuse_unused, with_names
from server.web.large_json import read_json
from server.web.library import Shelf
from server.web.new_jobs import new_job, pnginfo_of
from server.web.prompt_errors import NotTaken, outputs_refusal, refusal, whole_refusal, wrong_request
from server.web.requests import BatchRequest, PromptRequest, Submission
from server.web.running_jobs import CannotRun, Prepared
from server.workers.messages import Job, JobFolders
from workflows.documents import Document, UnreadableDocument, carried, document_in, document_of
from workflows.editor.shapes import is_editor_document
from workflows.pictures import is_picture

Json = dict[str, Any]
MOST_NODES = 200_000
LONGEST_MESSAGE = 4_000

S = TypeVar("S", bound=Submission)
_WORKFLOW: TypeAdapter[Workflow] = TypeAdapter(Workflow)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What a client sent.

    Args:
        files: those that came beside the body, in a form.
        in_form: whether the body is a part of a form.
    """

    body: bytes
    most_pixels: int
    files: Mapping[str, StagedFile] = field(default_factory=dict[str, StagedFile])
    in_form: bool = False


@dataclass(frozen=True, slots=True)
class Intake:
    """Jobs that can be queued; what of them cannot be made, and what is to be said of them."""

    jobs: tuple[NewJob, ...]
    node_errors: Json = field(default_factory=dict[str, Any])
    warnings: tuple[str, ...] = ()


@collector_paused()
def prompt_of(sent: Sent, options: Mapping[str, str], owner: str, shelf: Shelf) -> Intake:
    """The job that a body asks for: JSON, or a picture that carries a workflow. Keeps the pictures that came with it.

    Args:
        options: of a picture, what JSON would say beside the workflow.

    Raises:
        NotTaken, server.web.problems.Refused
    """
    request, document = _prompt(sent, options, shelf)
    if request.prompt_id is not None and not is_job_id(request.prompt_id):
        message = "prompt_id must be a UUID in canonical form: lower case, with hyphens"
        raise NotTaken(refusal("invalid_prompt_id", message, repr(request.prompt_id)[:200]))
    names = _kept(sent, request, shelf)
    workflow, used = with_names(_changed(document.workflow, request.set, shelf), shelf.catalogue, names)
    refuse_unused(names, used)
    accepted = _examined(workflow, request, shelf)
    job = new_job(request, document, accepted, owner, shelf)
    if request.prompt_id is not None:
        job = replace(job, id=request.prompt_id)
    return Intake((job,), accepted.node_errors, (*document.warnings, *map(str, accepted.warnings)))


@collector_paused()
def batch_of(sent: Sent, owner: str, shelf: Shelf) -> Intake:
    """The jobs of a batch: one workflow, and what is to be changed in it for each.

    Raises:
        NotTaken, server.web.problems.Refused
    """
    request = _validated(BatchRequest, _json(sent.body))
    document = _document(lambda: document_of(request.prompt, shelf.describe))
    names = _kept(sent, request, shelf)
    workflow, used = with_names(document.workflow, shelf.catalogue, names)
    sets = [{name: _renamed(value, names) for name, value in changes.items()} for changes in request.sets]
    refuse_unused(names, used.union(*(map(str, changes.values()) for changes in request.sets)))
    accepted = _examined(workflow, request, shelf)
    first = new_job(request, document, accepted, owner, shelf)
    for at, changes in enumerate(sets):
        try:
            changed = _changed(workflow, changes, shelf)
            _examined(changed, request, shelf)
        except NotTaken as error:
            error.body["error"]["extra_info"]["set"] = at
            raise
    jobs = tuple(_numbered(first, at, changes) for at, changes in enumerate(sets))
    return Intake(jobs, accepted.node_errors, (*document.warnings, *map(str, accepted.warnings)))


def _numbered(first: NewJob, at: int, changes: Mapping[str, Any]) -> NewJob:
    if at == 0:
        return replace(first, overrides=changes)
    fresh = NewJob(workflow=first.workflow).id
    return replace(first, id=fresh, overrides=changes)


def problems_of(sent: Sent, options: Mapping[str, str], shelf: Shelf) -> Json:
    """Everything that is wrong with what would be asked for, and what would be made of it."""
    try:
        intake = prompt_of(sent, options, "", shelf)
    except NotTaken as error:
        problems = shelf.names.in_json([_plain(problem) for problem in error.problems])
        return {"valid": False, "runs": [], "problems": problems, "warnings": [], **error.body}
    (job,) = intake.jobs
    return {
        "valid": not intake.node_errors,
        "runs": list(job.targets or ()),
        "problems": [],
        "warnings": list(intake.warnings),
        "node_errors": intake.node_errors,
    }


@collector_paused()
def prepared(claim: Claim, shelf: Shelf, previews: bool) -> Prepared:
    """What a worker is to run of a claimed job. Raises CannotRun."""
    job = claim.job
    extra = pnginfo_of(job.extra.value())
    text = job.workflow.text
    document: Json = read_json(text.encode())
    if job.overrides:
        try:
            before = read(document)
            workflow = override(before, shelf.catalogue, assignments(job.overrides))
        except (WrongOverride, InvalidWorkflow) as error:
            raise CannotRun(str(error)) from error
        document = _WORKFLOW.dump_python(workflow)
        text = json.dumps(document)
        if "workflow" in extra:
            extra = carried(Document(before, extra), workflow, shelf.describe)
    nodes = {node_id: str(used.get("class_type", "")) for node_id, used in document.items()}
    made = Job(
        id=job.id,
        workflow=text.encode(),
        targets=job.targets,
        extra=json.dumps(extra).encode(),
        previews=previews,
        folders=_job_folders(shelf.folders),
    )
    return Prepared(made, nodes, shelf.names)


def _job_folders(folders: OwnerFolders) -> JobFolders:
    # A worker may be in another folder than the server.
    output, uploads, temporary = (path.absolute() for path in (folders.output, folders.uploads, folders.temporary))
    return JobFolders(output=output, uploads=uploads, temporary=temporary)


def assignments(changes: Mapping[str, Any]) -> list[str]:
    """Changes as the command line has them."""
    return [
        f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in changes.items()
    ]  # what text is wanted for stays text, whatever it looks like


# Reading


def _prompt(sent: Sent, options: Mapping[str, str], shelf: Shelf) -> tuple[PromptRequest, Document]:
    body = sent.body
    if is_picture(body):
        given: Json = {name: value for name, value in options.items() if name in ("client_id", "prompt_id")}
        request = _validated(PromptRequest, given)
        return request, _document(lambda: document_in(body, shelf.describe, "this picture"))
    content = _json(body)
    if is_editor_document(content):
        return PromptRequest(), _document(lambda: document_of(content, shelf.describe))
    if sent.in_form and _is_plain_workflow(content):
        content = {"prompt": content}
    request = _validated(PromptRequest, content)
    if request.prompt is None:
        raise NotTaken(refusal("no_prompt", "No prompt provided", "No prompt provided"))
    prompt = request.prompt
    return request, _document(lambda: document_of(prompt, shelf.describe))


def _is_plain_workflow(content: object) -> bool:
    """Whether this is a workflow in API-format with nothing around it."""
    nodes = cast("Json", content).values() if isinstance(content, dict) else ()
    return bool(nodes) and all(isinstance(node, dict) and "class_type" in node for node in nodes)


def _kept(sent: Sent, request: Submission, shelf: Shelf) -> Mapping[str, str]:
    """The pictures that came along, by their names in the input folder."""
    files: dict[str, bytes | StagedFile] = {**decoded(request.files), **sent.files}
    return keep(files, shelf.folders, sent.most_pixels) if files else {}


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    return names.get(value, value) if isinstance(value, str) else value


def _json(body: bytes) -> Any:
    try:
        return read_json(body)
    except RecursionError:
        raise NotTaken(refusal("invalid_json", "The body is nested too deeply")) from None
    except ValueError as error:
        raise NotTaken(refusal("invalid_json", "The body is not JSON", str(error)[:LONGEST_MESSAGE])) from error


def _validated(kind: type[S], content: object) -> S:
    if not isinstance(content, dict):
        raise wrong_request("The body must be a JSON object")
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]["loc"][:1]
        lines = "\n".join(
            f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors(include_url=False)[:20]
        )
        if first == ("prompt",):
            raise NotTaken(refusal("invalid_prompt", "The prompt is no workflow", lines)) from error
        raise wrong_request("The request is not as it should be", lines) from error
    except RecursionError as error:
        raise wrong_request("The request is nested too deeply") from error


def _document(reading: Callable[[], Document]) -> Document:
    try:
        document = reading()
    except InvalidWorkflow as error:
        raise _invalid(error.problems) from error
    except UnreadableDocument as error:
        raise NotTaken(refusal("invalid_prompt", "This carries no workflow", str(error))) from error
    except RecursionError as error:
        raise NotTaken(refusal("invalid_prompt", "The workflow is nested too deeply")) from error
    if len(document.workflow) > MOST_NODES:
        message = f"A workflow may have {MOST_NODES:,} nodes, and this one has {len(document.workflow):,}"
        raise NotTaken(refusal("invalid_prompt", message), 413)
    return document


def _invalid(problems: Sequence[Problem]) -> NotTaken:
    return NotTaken(whole_refusal(problems) or outputs_refusal(problems, {}), problems=problems)


def _changed(workflow: Workflow, changes: Mapping[str, Any], shelf: Shelf) -> Workflow:
    if not changes:
        return workflow
    try:
        return override(workflow, shelf.catalogue, assignments(changes))
    except WrongOverride as error:
        details = str(error).removeprefix("--set ")
        raise NotTaken(refusal("invalid_override", "An input cannot be set", details)) from error
    except RecursionError as error:
        raise wrong_request("A value is nested too deeply") from error


def _examined(workflow: Workflow, request: Submission, shelf: Shelf) -> Accepted:
    try:
        found = examine(workflow, shelf.catalogue, shelf.folders, request.partial_execution_targets)
    except RecursionError as error:
        raise NotTaken(refusal("invalid_prompt", "The workflow is nested too deeply")) from error
    names = shelf.names
    if isinstance(found, Refused):
        raise NotTaken(names.in_json(found.body), problems=found.problems)
    warnings = tuple(map(names.in_text, found.warnings))
    return replace(found, node_errors=names.in_json(found.node_errors), warnings=warnings)


def _plain(problem: Problem) -> Json:
    return {
        "kind": problem.kind,
        "message": problem.message,
        "node_id": problem.node_id,
        "class_type": problem.class_name,
        "input": problem.input,
        "expected": problem.expected,
        "found": problem.found,
        "suggestion": problem.suggestion,
    }
