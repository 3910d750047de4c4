"""Decide at the start whether the door is locked, and with which keys."""

from collections.abc import Sequence

from server.web.access import Door
from server.web.keys import KeyRing, StatedKeys
from server.web.options import WebOptions


class Unlocked(Exception):
    """Other machines could reach the server, and there is no key to lock it with."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self.addresses = tuple(addresses)
        super().__init__(
            f"with --listen {','.join(addresses)} other machines can reach this server, and there is no key that it "
            "could ask them for. Make one with `latentloom keys add NAME` (with the same --data and --database) and "
            "start again. Or leave --listen out, to be reached from this machine alone; or say --insecure-no-auth "
            "where everybody who can reach this server may use it and see everything"
        )


def lock(options: WebOptions, ring: KeyRing | None = None, ring_has_keys: bool = False) -> Door:
    """The door of a server.

    Without any keys it stands open for programs on this machine, and for those alone.

    Args:
        ring: knows keys that were made for people, such as those in the database.
        ring_has_keys: whether it knows any now.

    Raises:
        Unlocked: others can come, and there are no keys.
    """
    if options.insecure_no_auth:
        return Door(requests=options.request_rate)
    if not options.api_key and not ring_has_keys:
        if not options.is_local:
            raise Unlocked(options.listen)
        return Door(requests=options.request_rate)
    rings: list[KeyRing] = [StatedKeys(options.api_key)] if options.api_key else []
    if ring is not None:
        rings.append(ring)
    return Door(rings=tuple(rings), requests=options.request_rate)
