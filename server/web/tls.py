"""HTTPS, with a certificate of the user's and no protocol that is out of date."""

import ssl
from pathlib import Path


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """How a server encrypts: TLS 1.2 or newer. Raises ValueError, which says what is wrong with the files."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    for path in (certificate, key):
        try:
            path.open("rb").close()
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        # Without an answer here, an encrypted key would have the server wait at the terminal for its password.
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except (ssl.SSLError, OSError, ValueError) as error:
        raise ValueError(
            f"{certificate} and {key} cannot be used for TLS: {_reason(error)}. Both have to be PEM files, the key "
            "without a password and belonging to the certificate"
        ) from error
    return context


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or str(error) or type(error).__name__
