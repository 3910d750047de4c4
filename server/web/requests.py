"""What clients send to have a workflow run, as the protocol has it and as this server adds to it."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, WithJsonSchema

Json = dict[str, Any]
MOST_BATCH = 10_000


class Webhook(BaseModel):
    """Whom to tell when a job is over."""

    model_config = ConfigDict(extra="forbid")

    url: Annotated[str, Field(pattern=r"^https?://[^/?#@]+([/?#]|$)", max_length=2000)]
    secret: Annotated[
        str | None,
        Field(
            min_length=16,
            max_length=1000,
            description="Signs what is sent, as Standard Webhooks has it; the server's own secret if left out.",
        ),
    ] = None
    events: Annotated[
        list[Literal["completed", "failed", "cancelled"]] | None,
        Field(min_length=1, description="The endings that are told of; all if left out."),
    ] = None


class Submission(BaseModel):
    """How jobs are to be run, whichever workflow it is."""

    model_config = ConfigDict(extra="ignore")

    client_id: Annotated[str | None, Field(max_length=1000, description="Who is told of the progress.")] = None
    number: Annotated[FiniteFloat | None, Field(description="The place in the queue; lower goes first.")] = None
    front: Annotated[bool, Field(description="Before everything that waits.")] = False
    priority: Literal["interactive", "normal", "background"] = "normal"
    extra_data: Annotated[Json, Field(description="`extra_pnginfo` goes into saved pictures.")] = Field(
        default_factory=dict
    )
    partial_execution_targets: Annotated[
        list[str] | None, Field(description="Ids of the outputs to be made; all if left out.")
    ] = None
    webhook: Webhook | None = None
    files: Annotated[
        dict[str, str],
        Field(
            description="Pictures by the names that nodes such as LoadImage use for them, each in base64 or as a "
            "`data:` URL. Large ones are better sent as parts of a form."
        ),
    ] = Field(default_factory=dict[str, str])


class PromptRequest(Submission):
    """A workflow to be run, in API-format or in an editor's own format."""

    prompt: Annotated[Json | None, Field(description="The workflow.")] = None
    prompt_id: Annotated[str | None, Field(description="A UUID for the job.")] = None
    set: Annotated[
        dict[str, Any], Field(description='Inputs to be changed: `{"KSampler.seed": 5}`, by id, title or class.')
    ] = Field(default_factory=dict[str, Any])


class EditorDocument(BaseModel):
    """A workflow as an editor saves it."""

    model_config = ConfigDict(extra="allow")

    nodes: list[Json]
    links: list[Any] = Field(default_factory=list[Any])


Picture = Annotated[bytes, WithJsonSchema({"type": "string", "format": "binary", "contentMediaType": "image/png"})]


class PromptForm(BaseModel):
    """A workflow, and pictures beside it."""

    prompt: Annotated[str, Field(description="What could be the whole body: JSON, or the workflow alone.")]
    files: Annotated[
        list[Picture],
        Field(
            description="Each under any field's name; nodes such as LoadImage refer to them by the names of the files."
        ),
    ] = Field(default_factory=list[bytes])


class BatchRequest(Submission):
    """One workflow to be run several times, each time with other inputs. It is stored once."""

    prompt: Json
    sets: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MOST_BATCH)]


class QueueChange(BaseModel):
    """Jobs that are to leave the queue, or finished ones the history."""

    model_config = ConfigDict(extra="ignore")

    clear: bool = False
    delete: list[str] = Field(default_factory=list[str])


class Interruption(BaseModel):
    """Which job is to stop; without an id, whatever of the client's runs."""

    model_config = ConfigDict(extra="ignore")

    prompt_id: str | None = None


class Freeing(BaseModel):
    """What workers are to let go of."""

    model_config = ConfigDict(extra="ignore")

    unload_models: bool = False
    free_memory: bool = False


class Cancelling(BaseModel):
    """Jobs that are to stop, whether they wait or run."""

    job_ids: Annotated[list[str], Field(max_length=MOST_BATCH)]
