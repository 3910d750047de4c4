"""`/docs`: the OpenAPI document as one page, without scripts."""

import json
import re
from collections.abc import Iterable, Mapping
from html import escape
from itertools import groupby
from typing import Any

from aiohttp import web

from server.web.pages import page

Json = Mapping[str, Any]


def docs_page(document: Json) -> web.Response:
    """The page of a document."""
    operations = [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    groups = groupby(sorted(operations, key=lambda each: each[2]["tags"]), key=lambda each: each[2]["tags"][0])
    told = document["webhooks"].items()
    schemas = document["components"]["schemas"]
    info = document["info"]
    body = (
        f'<h1>{escape(info["title"])} {escape(info["version"])}</h1><p class="soft">{prose(info["description"])} '
        'Programs read the same as <a href="/openapi.json">OpenAPI 3.1</a>.</p>'
        + "".join(_group(name, members) for name, members in groups)
        + "<h2>Webhooks</h2>"
        + "".join(_operation(name, method, each) for name, methods in told for method, each in methods.items())
        + f"<h2>Models</h2>{''.join(_model(name, schema) for name, schema in sorted(schemas.items()))}"
    )
    return page(f"{info['title']}: what can be asked for", body)


def _group(name: str, members: Iterable[tuple[str, str, Json]]) -> str:
    listed = "".join(_operation(*member) for member in members)
    return f"<h2>{escape(name[:1].upper() + name[1:])}</h2>{listed}"


def _operation(path: str, method: str, operation: Json) -> str:
    parts = [
        f"<p>{prose(operation.get('description', ''))}</p>" if "description" in operation else "",
        _parameters(operation["parameters"]),
        _body(operation.get("requestBody", {})),
        _answers(operation["responses"]),
        _needs(operation["security"]),
    ]
    return (
        f'<details><summary><span class="method">{method.upper()}</span><code>{escape(path)}</code>'
        f'<span class="soft">{prose(operation["summary"])}</span></summary><div>{"".join(parts)}</div></details>'
    )


def _parameters(parameters: Iterable[Json]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(each['name'])}</code></td><td>{each['in']}{'' if each['required'] else ', optional'}"
        f"</td><td><code>{escape(shown(each['schema']))}</code></td><td>{prose(each.get('description', ''))}</td></tr>"
        for each in parameters
    )
    head = "<tr><th>Parameter</th><th>In</th><th>Type</th><th></th></tr>"
    return f"<table>{head}{rows}</table>" if rows else ""


def _body(body: Json) -> str:
    told = "".join(_content(kind, each["schema"]) for kind, each in body.get("content", {}).items())
    return f"<p>Body: {told}</p>" if told else ""


def _answers(responses: Json) -> str:
    rows = "".join(
        f"<tr><td>{escape(status)}</td><td>{escape(each['description'])}</td><td>"
        f"{''.join(_content(kind, one['schema']) for kind, one in each.get('content', {}).items())}</td></tr>"
        for status, each in responses.items()
    )
    return f"<table><tr><th>Answer</th><th></th><th></th></tr>{rows}</table>"


def _content(kind: str, schema: Json) -> str:
    described = f": {shown(schema)}" if schema else ""
    return f"<code>{escape(kind)}{escape(described)}</code> "


def _needs(security: Iterable[Json]) -> str:
    scopes = sorted({scope for each in security for scopes in each.values() for scope in scopes})
    told = f"with the scope <code>{escape(scopes[0])}</code>" if scopes else ""
    return f'<p class="soft">A key {told}, where keys are asked for.</p>' if told else '<p class="soft">No key.</p>'


def _model(name: str, schema: Json) -> str:
    text = escape(json.dumps(schema, indent=2, ensure_ascii=False))
    return (
        f"<details><summary><code>{escape(name)}</code>"
        f'<span class="soft">{prose(str(schema.get("description", "")).partition(chr(10))[0])}</span></summary>'
        f"<div><pre>{text}</pre></div></details>"
    )


def prose(text: str) -> str:
    """A text as HTML; what stands in `these` is code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def shown(schema: Json) -> str:
    """A type in a word or two."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(shown(each) for each in schema["anyOf"]))
    if "enum" in schema:
        return " | ".join(json.dumps(each) for each in schema["enum"])
    if "const" in schema:
        return json.dumps(schema["const"])
    if schema.get("type") == "array":
        return f"list of {shown(schema.get('items', {}))}"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), Mapping):
        return f"object of {shown(schema['additionalProperties'])}"
    return str(schema.get("type", "anything"))
