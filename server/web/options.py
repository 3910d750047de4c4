"""What `latentloom serve` is told of HTTP: where to listen, who may come in, and where files are."""

import ipaddress
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from server.web.files.owner_folders import OwnerFolders, installation_folders
from server.web.keys import StatedKey
from server.web.origins import ANY, Origins, is_origin
from server.web.rates import Rate
from server.web.signatures import checked_secret
from server.web.site import MIB, Limits
from server.web.tls import server_context

LOOPBACK = "127.0.0.1"
EVERYWHERE = ("0.0.0.0", "::")
PORT = 8188
USUAL_REQUESTS = 1000.0


def _secret(said: str | None) -> str | None:
    return None if said is None else checked_secret(said)


class WebOptions(BaseModel):
    """Options of the command line, under the names of ComfyUI's flags where there are such.

    What takes several values takes them in a list, or in one text with commas between.

    Args:
        listen: addresses; none: all of this machine's.
        enable_cors_header: origins of other sites whose pages may use this server; `*`: any.
        allowed_host: names that this server has beside its addresses and the machine's own name; `*`: any.
        max_upload_size: megabytes.
        api_key: keys, each `KEY` or `OWNER=KEY`.
        webhook_secret: signs what webhooks are told; the one in the data folder if left out.
        allow_private_webhooks: whether webhooks may go to this machine and to private networks.
        insecure_no_auth: whether nobody is asked for a key, also from other machines.
        requests_per_second: of one client; 0: as many as it likes, which is usual on this machine alone.

    Raises:
        pydantic.ValidationError: a value cannot be.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True)

    listen: tuple[str, ...] = (LOOPBACK,)
    port: Annotated[int, Field(ge=0, le=65535)] = PORT
    tls_keyfile: Path | None = None
    tls_certfile: Path | None = None
    enable_cors_header: tuple[str, ...] = ()
    allowed_host: tuple[str, ...] = ()
    max_upload_size: Annotated[float, Field(gt=0, le=MIB, allow_inf_nan=False)] = 100
    enable_compress_response_body: bool = False
    api_key: Annotated[tuple[StatedKey, ...], Field(repr=False)] = ()
    webhook_secret: Annotated[str | None, Field(repr=False), AfterValidator(_secret)] = None
    allow_private_webhooks: bool = False
    insecure_no_auth: bool = False
    requests_per_second: Annotated[float | None, Field(ge=0, allow_inf_nan=False)] = None
    base_directory: Path | None = None
    input_directory: Path | None = None
    output_directory: Path | None = None
    temp_directory: Path | None = None
    user_directory: Path | None = None

    @field_validator("listen", "enable_cors_header", "allowed_host", mode="before")
    @classmethod
    def _split(cls, said: Any) -> Any:
        return tuple(_parts(said))

    @field_validator("api_key", mode="before")
    @classmethod
    def _read_keys(cls, said: Any) -> Any:
        return tuple(each if isinstance(each, StatedKey) else StatedKey.parse(each) for each in _parts(said))

    @field_validator("listen", mode="after")
    @classmethod
    def _check_addresses(cls, listen: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(address.strip("[]") for address in listen) or EVERYWHERE

    @field_validator("enable_cors_header", mode="after")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        clean = tuple(origin.lower().rstrip("/") for origin in origins)
        for origin in clean:
            if origin != ANY and not is_origin(origin):
                raise ValueError(
                    f"{origin!r} is no origin; one looks like https://app.example or http://localhost:3000"
                )
        return clean

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if (self.tls_keyfile is None) != (self.tls_certfile is None):
            raise ValueError("--tls-keyfile and --tls-certfile go together: give both, or neither")
        return self

    @property
    def is_local(self) -> bool:
        """Whether only programs on this machine can come here."""
        return all(_is_loopback(address) for address in self.listen)

    @property
    def limits(self) -> Limits:
        """How much a request may bring."""
        return Limits(upload_bytes=int(self.max_upload_size * MIB))

    @property
    def origins(self) -> Origins:
        """Whom the server believes to be itself, and who else may come in."""
        own = frozenset(address.lower() for address in self.listen)
        return Origins(names=own.union(self.allowed_host), allowed=frozenset(self.enable_cors_header))

    @property
    def request_rate(self) -> Rate | None:
        """How often one client may ask for something."""
        usual = 0.0 if self.is_local else USUAL_REQUESTS
        most = usual if self.requests_per_second is None else self.requests_per_second
        return Rate(burst=max(1.0, 2 * most), per_second=most) if most else None

    def folders(self, data: Path, examples: Path | None = None) -> OwnerFolders:
        """The folders of this installation, whose data folder is `data` unless another base was stated."""
        return installation_folders(
            self.base_directory or data,
            inputs=self.input_directory,
            output=self.output_directory,
            temp=self.temp_directory,
            users=self.user_directory,
            examples=examples,
        )

    def tls(self) -> ssl.SSLContext | None:
        """How connections are encrypted, if they are. Raises ValueError, which says what is wrong with the files."""
        if self.tls_certfile is None or self.tls_keyfile is None:
            return None
        return server_context(self.tls_certfile, self.tls_keyfile)


def _parts(said: object) -> Sequence[Any]:
    """The values in a text with commas, or in several of them."""
    if said is None:
        return ()
    if isinstance(said, str):
        return [part.strip() for part in said.split(",") if part.strip()]
    if not isinstance(said, list | tuple):
        return [said]
    texts = cast("Sequence[object]", said)
    return [part for each in texts for part in (_parts(each) if isinstance(each, str) else [each])]


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        # Only these names are told apart from others by their own definition (RFC 6761).
        return address.lower() == "localhost" or address.lower().endswith(".localhost")
