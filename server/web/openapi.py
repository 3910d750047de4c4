"""The site described in OpenAPI 3.1, from its registered routes and the models that check what is sent to them."""

import inspect
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any, get_args, get_origin

from aiohttp import web
from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from server.web.access import COOKIE, KEY_HEADER, KEY_PARAMETER
from server.web.endpoint import Endpoint, Gives, endpoint_of
from server.web.forms import MULTIPART
from server.web.job_forms import JobOver
from server.web.parameters import Body, Checked, FormBody, JsonBody, PathPart, Query, WholeBody

Json = dict[str, Any]

REFUSALS: Mapping[int, str] = {
    400: "The request is wrong; the answer says what is.",
    401: "There is no key, or it opens nothing.",
    403: "The key does not allow it, or a name leads out of its folder.",
    404: "There is no such thing.",
    413: "The body is too large.",
    429: "Too often.",
}
OTHERWISE = "Refused for another reason; the answer says which."
KEYS: Mapping[str, Json] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": KEY_HEADER},
    "cookie": {"type": "apiKey", "in": "cookie", "name": COOKIE},
}
KEY_IN_URL: Json = {"type": "apiKey", "in": "query", "name": KEY_PARAMETER}
DESCRIPTION = (
    "Most routes are those of ComfyUI's protocol, and are there below `/api` as well. Answers that refuse say why, in "
    "`error`."
)
SIGNATURE = ("webhook-id", "webhook-timestamp", "webhook-signature")
SIGNED = (
    "It is signed as Standard Webhooks 1.0.0 has it, and verified with any library for that. Or by hand: join "
    "`webhook-id`, `webhook-timestamp` and the body as it came with points, make an HMAC-SHA256 of that with the "
    "secret (what follows `whsec_` is base64), and compare it in base64 with what follows `v1,` in "
    "`webhook-signature`, in constant time. Refuse a timestamp that is more than five minutes old, and pass over an "
    "id that was heard before. The secret is that of the submission, or else the server's, which is in "
    "`webhook_secret` in its data folder."
)
REFERENCES = "#/components/schemas/"


def endpoints_of(application: web.Application) -> list[Endpoint]:
    """The endpoints that a site tells of, each once, in the order of their paths."""
    found = {endpoint for route in application.router.routes() if (endpoint := endpoint_of(route.handler))}
    return sorted((each for each in found if not each.hidden), key=lambda each: (each.path, each.method))


def openapi(application: web.Application) -> Json:
    """The document."""
    endpoints = endpoints_of(application)
    schemas = _Schemas(endpoints)
    paths: dict[str, Json] = {}
    for endpoint in endpoints:
        paths.setdefault(plain_path(endpoint.path), {})[endpoint.method.lower()] = _operation(endpoint, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Latentloom", "version": _version(), "description": DESCRIPTION},
        "paths": paths,
        "webhooks": {"job": {"post": _webhook(schemas)}},
        "components": {"schemas": schemas.definitions, "securitySchemes": {**KEYS, "url": KEY_IN_URL}},
    }


def plain_path(path: str) -> str:
    """A path without the patterns of its parts."""
    return re.sub(r"\{(\w+):[^{}]*\}", r"{\1}", path)


def _version() -> str:
    try:
        return version("latentloom")
    except PackageNotFoundError:
        return "0"


class _Schemas:
    """The types of all routes, described together, so that models that happen to share a name are told apart."""

    def __init__(self, endpoints: list[Endpoint]) -> None:
        adapters: dict[tuple[str, JsonSchemaMode], TypeAdapter[Any]] = {
            ("webhook", "serialization"): TypeAdapter(JobOver),
        }
        for endpoint in endpoints:
            adapters[_key(endpoint, "refusal"), "serialization"] = TypeAdapter(endpoint.shape.model)
            for parameter in endpoint.parameters:
                if isinstance(parameter, Checked):
                    adapters[_key(endpoint, parameter.name), "validation"] = parameter.adapter
                if isinstance(parameter, WholeBody):
                    for kind, adapter in parameter.takes.adapters.items():
                        if adapter is not None:
                            adapters[_key(endpoint, kind), "validation"] = adapter
            if _gives(endpoint) is None and endpoint.returns is not None:
                adapters[_key(endpoint, "return"), "serialization"] = TypeAdapter(endpoint.returns)
        generator = GenerateJsonSchema(by_alias=True, ref_template=f"{REFERENCES}{{model}}")
        self._made, definitions = generator.generate_definitions(
            [(key, mode, adapter.core_schema) for (key, mode), adapter in adapters.items()]
        )
        self.definitions: Json = {**definitions}

    def sent(self, endpoint: Endpoint, parameter: Checked) -> Json:
        """The type of what is sent."""
        return self._made[_key(endpoint, parameter.name), "validation"]

    def taken(self, endpoint: Endpoint, body: WholeBody) -> Json:
        """The types of a body that is taken as it arrives, by media type."""
        return {
            kind: {"schema": {} if adapter is None else self._made[_key(endpoint, kind), "validation"]}
            for kind, adapter in body.takes.adapters.items()
        }

    def given(self, endpoint: Endpoint) -> Json:
        """The type of the answer."""
        return self._made[_key(endpoint, "return"), "serialization"]

    @property
    def webhook(self) -> Json:
        """The type of what webhooks are told."""
        return self._made["webhook", "serialization"]

    def refused(self, endpoint: Endpoint) -> Json:
        """The type of answers that refuse."""
        return self._made[_key(endpoint, "refusal"), "serialization"]

    def resolved(self, schema: Json) -> Json:
        """What a schema refers to."""
        reference = schema.get("$ref")
        return self.definitions[reference.removeprefix(REFERENCES)] if isinstance(reference, str) else schema


def _webhook(schemas: _Schemas) -> Json:
    """What this server sends itself."""
    headers = [_parameter(name, "header", {"type": "string"}, True) for name in SIGNATURE]
    return {
        "operationId": "webhook_job",
        "summary": "A job is over: sent to the `webhook` that it was submitted with.",
        "description": SIGNED,
        "parameters": headers,
        "requestBody": {"required": True, "content": {"application/json": {"schema": schemas.webhook}}},
        "responses": {
            "2XX": {"description": "Heard; it is not told again."},
            "410": {"description": "Nobody is there any more; it is given up."},
            "default": {"description": "It is told again after a while, up to twelve times in some hours."},
        },
        "security": [],
    }


def _key(endpoint: Endpoint, name: str) -> str:
    return f"{endpoint.method} {endpoint.path} {name}"


def _gives(endpoint: Endpoint) -> Gives | None:
    """What it says of responses that it makes itself."""
    returned = endpoint.returns
    if get_origin(returned) is Annotated:
        return next((each for each in get_args(returned) if isinstance(each, Gives)), None)
    is_response = isinstance(returned, type) and issubclass(returned, web.StreamResponse)
    return Gives() if is_response else None


def _operation(endpoint: Endpoint, schemas: _Schemas) -> Json:
    text = inspect.cleandoc(endpoint.function.__doc__ or "")
    operation: Json = {
        "operationId": f"{endpoint.method.lower()}{re.sub(r'[^A-Za-z0-9]+', '_', plain_path(endpoint.path))}",
        "summary": text.partition("\n")[0],
        "tags": [endpoint.function.__module__.rpartition(".")[2].replace("_", " ")],
        "parameters": _parameters(endpoint, schemas),
        "responses": _responses(endpoint, schemas),
        "security": _security(endpoint),
    }
    if "\n" in text:
        operation["description"] = text
    body = next((each for each in endpoint.parameters if isinstance(each, Body)), None)
    if body is not None:
        required = not isinstance(body, Checked) or body.required
        operation["requestBody"] = {"required": required, "content": _content(endpoint, body, schemas)}
    return operation


def _parameters(endpoint: Endpoint, schemas: _Schemas) -> list[Json]:
    found: list[Json] = []
    for parameter in endpoint.parameters:
        if isinstance(parameter, PathPart):
            found.append(_parameter(parameter.name, "path", schemas.sent(endpoint, parameter), True))
        elif isinstance(parameter, Query):
            model = schemas.resolved(schemas.sent(endpoint, parameter))
            required = model.get("required", ())
            found += [
                _parameter(name, "query", schema, name in required)
                for name, schema in model.get("properties", {}).items()
            ]
    return found


def _parameter(name: str, place: str, schema: Json, required: bool) -> Json:
    described = {key: value for key, value in schema.items() if key not in ("title", "description")}
    text = {"description": schema["description"]} if "description" in schema else {}
    return {"name": name, "in": place, "required": required, **text, "schema": described}


def _content(endpoint: Endpoint, body: Body, schemas: _Schemas) -> Json:
    match body:
        case JsonBody():
            return {"application/json": {"schema": schemas.sent(endpoint, body)}}
        case FormBody():
            return {MULTIPART: {"schema": schemas.sent(endpoint, body)}}
        case WholeBody():
            return schemas.taken(endpoint, body)


def _responses(endpoint: Endpoint, schemas: _Schemas) -> Json:
    gives = _gives(endpoint)
    if gives is not None:
        content: Json = {gives.media_type: {"schema": {}}} if gives.media_type else {}
        others: Json = {kind: {"schema": {}} for kind in gives.others}
        responses: Json = {str(gives.status): _response(content | others)}
        responses |= {str(status): {"description": text, "content": content} for status, text in gives.besides}
    elif endpoint.returns is None:
        responses = {"200": _response({})}
    else:
        responses = {"200": _response({"application/json": {"schema": schemas.given(endpoint)}})}
    refusal = {"application/json": {"schema": schemas.refused(endpoint)}}
    refusal |= {kind: {"schema": {}} for kind in (gives.refusals if gives else ())}
    takes = {type(parameter) for parameter in endpoint.parameters}
    for status, text in REFUSALS.items():
        if status == 404 and PathPart not in takes and Query not in takes:
            continue
        if status == 413 and not any(isinstance(parameter, Body) for parameter in endpoint.parameters):
            continue
        responses[str(status)] = {"description": text, "content": refusal}
    return {**responses, "default": {"description": OTHERWISE, "content": refusal}}


def _response(content: Json) -> Json:
    return {"description": "As asked.", **({"content": content} if content else {})}


def _security(endpoint: Endpoint) -> list[Json]:
    if endpoint.need == "nothing":
        return []
    names = [*KEYS, *(("url",) if endpoint.key_in_url else ())]
    return [{name: [endpoint.need]} for name in names]
