"""Fingerprints of values: what they are, whoever made them and however."""

import json

from graph.codec import Codec
from graph.identity import digest, encode


def fingerprint(value: object, codec: Codec) -> bytes:
    """32 bytes that two values share only if they are the same in type and content. Raises NoCodec."""
    encoded = codec.encode(value)
    parts = [encode(json.dumps(encoded.tree))]
    for name, block in encoded.blocks.items():
        parts += (encode(name), encode(block.dtype), encode(block.shape), bytes(block.data))
    return digest(*parts)
