"""The key of a result: known before anything runs, independent of node ids, of order and of the document."""

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from graph.identity import code_identity, digest, encode
from graph.node import Node
from graph.values import Service

if TYPE_CHECKING:
    from graph.resolve import Step

Key = bytes
"""32 bytes that name a result. None in place of a key: the result has no identity and is never reused."""


Origin = tuple[Key, int]
"""Where an output of a composite comes from: the key of the step inside and the output of that."""


@lru_cache(maxsize=8192)
def node_identity(node: Node[Any, Any]) -> bytes:
    """Identity of a node type: its name, its declared version and its code."""
    return digest(b"node", encode(node.name), encode(node.version), code_identity(node.function))


def key_of(
    step: "Step",
    keys: Mapping[str, Key | None],
    origins: Mapping[tuple[str, int], tuple[Key | None, int]] | None = None,
    services: Mapping[type[Service], str] | None = None,
) -> Key | None:
    """The key of a step, from its literals, its files and the keys upstream (`keys`, by step id).

    Args:
        origins: of outputs of composites that have been expanded. A step inside another composite goes by them, so
            that it is the same whether the steps before it were called one by one or by one composite.
        services: the identities of services that have one. A composite may call nodes that take any of them.
    """
    if step.node.impure:
        return None
    parts = [node_identity(step.node)]
    literals, links, files = step.literals, step.links, step.files
    for name in step.node.inputs:
        link = links.get(name)
        if link is not None:
            upstream, output = (origins and origins.get(link)) or (keys[link[0]], link[1])
            if upstream is None or name in step.node.file_inputs:
                return None
            parts.append(b"%b>%b%d;" % (encode(name), upstream, output))
            if name in files:  # a text that comes by a link may mention them
                parts.append(b"@%b" % encode(files[name]))
        elif name in files:
            parts.append(b"%b@%b" % (encode(name), encode(files[name])))
        elif name in literals:
            parts.append(b"%b=%b" % (encode(name), encode(literals[name])))
    for kind, identity in services.items() if services else ():
        if step.node.composite or kind in step.node.services.values():
            parts.append(b"%b!%b" % (encode(f"{kind.__module__}.{kind.__qualname__}"), encode(identity)))
    return digest(*parts)


def identities(services: Mapping[type[Service], Service]) -> dict[type[Service], str]:
    """The services that state an identity, always in the same order."""
    stated = {kind: service.identity for kind, service in services.items() if service.identity}
    return dict(sorted(stated.items(), key=lambda item: (item[0].__module__, item[0].__qualname__)))


def origins_key(key: Key) -> Key:
    """The name under which the origins of a composite's outputs are kept."""
    return digest(b"origins", key)
