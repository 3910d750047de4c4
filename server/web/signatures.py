"""Signed messages, as the Standard Webhooks specification 1.0.0 has them, for which receivers find libraries.

A receiver verifies one so: take `webhook-id`, `webhook-timestamp` and the body as it came, join them with points, and
make an HMAC-SHA256 of that with the secret's bytes. In base64 and after `v1,` it is what stands in `webhook-signature`.
Compare both in constant time, and refuse a timestamp that is more than five minutes old.
"""

import base64
import binascii
import hmac
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

PREFIX = "whsec_"
SECRET_FILE = "webhook_secret"
SHORTEST_SECRET = 16


def signed_headers(secret: str, message_id: str, timestamp: int, body: bytes) -> Mapping[str, str]:
    """The headers that say of a body whose it is.

    Args:
        timestamp: seconds since 1970, when it is sent.
    """
    signed = b".".join((message_id.encode(), str(timestamp).encode(), body))
    digest = hmac.digest(_bytes_of(secret), signed, "sha256")
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def _bytes_of(secret: str) -> bytes:
    """What follows `whsec_` is base64; a secret without that is taken as it stands."""
    if secret.startswith(PREFIX):
        try:
            return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
        except binascii.Error:
            pass
    return secret.encode(errors="surrogatepass")


def checked_secret(text: str) -> str:
    """A secret that somebody states. Raises ValueError, which says how one should be."""
    if len(_bytes_of(text)) < SHORTEST_SECRET or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(
            f"a webhook secret has {SHORTEST_SECRET} or more letters, digits and signs, without spaces: "
            f"{new_secret()} would do"
        )
    return text


def new_secret() -> str:
    """256 random bits."""
    return PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def kept_secret(data: Path) -> str:
    """The secret of this installation; made when there is none, in a file that only its owner may read.

    Looks at the disk. Raises OSError, or ValueError if the file holds none.
    """
    path = data / SECRET_FILE
    if not path.exists():
        _make(path)
    try:
        return checked_secret(path.read_text(encoding="ascii", errors="replace").strip())
    except ValueError as error:
        raise ValueError(f"{path} holds no webhook secret; delete it, and another one will be made") from error


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{SECRET_FILE}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(new_secret() + "\n")
            file.flush()
            os.fsync(file.fileno())
        # Two servers that start at the same time agree on one of them, which is whole from the start.
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink(missing_ok=True)
