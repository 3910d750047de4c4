"""The key of a result: known before anything runs, independent of node ids, of order and of the document."""

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from graph.identity import code_identity, digest, encode
from graph.node import Node

if TYPE_CHECKING:
    from graph.resolve import Step

Key = bytes
"""32 bytes that name a result. None in place of a key: the result has no identity and is never reused."""


@lru_cache(maxsize=8192)
def node_identity(node: Node[Any, Any]) -> bytes:
    """Identity of a node type: its name, its declared version and its code."""
    return digest(b"node", encode(node.name), encode(node.version), code_identity(node.function))


def key_of(step: "Step", keys: Mapping[str, Key | None]) -> Key | None:
    """The key of a step, from its literals, its files and the keys upstream (`keys`, by step id)."""
    if step.node.impure:
        return None
    parts = [node_identity(step.node)]
    literals, links, files = step.literals, step.links, step.files
    for name in step.node.inputs:
        link = links.get(name)
        if link is not None:
            upstream = keys[link[0]]
            if upstream is None or name in step.node.file_inputs:
                return None
            parts.append(b"%b>%b%d;" % (encode(name), upstream, link[1]))
        elif name in files:
            parts.append(b"%b@%b" % (encode(name), encode(files[name])))
        elif name in literals:
            parts.append(b"%b=%b" % (encode(name), encode(literals[name])))
    return digest(*parts)
