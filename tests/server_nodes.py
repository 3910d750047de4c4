"""Own nodes for whole servers: they leave a trace when they run, and wait until they are let through."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graph.folders import Folders
from graph.node import node
from graph.values import INJECTED, Ui, Value
from nodes.output_names import place_output, write_atomically
from nodes.saving import SavedFiles


@dataclass(frozen=True)
class Token(Value, kind="TOKEN"):
    number: int = 0


@dataclass(frozen=True)
class Said(Ui):
    text: str

    def to_json(self) -> dict[str, list[Any]]:
        return {"text": [self.text]}


@node("Mint")
def mint(number: int = 0) -> Token:
    """Make a token."""
    return Token(number)


@node("Pass")
def pass_through(token: Token, door: str) -> Token:
    """Say that a door was reached, and wait until there is one."""
    Path(f"{door}.reached").touch()
    while not Path(door).exists():
        time.sleep(0.01)
    return token


@node("Stamp")
def stamp(token: Token, folder: str) -> Token:
    """Leave a line in a file of the token's number for each time this runs."""
    with (Path(folder) / str(token.number)).open("a") as file:
        file.write("stamped\n")
    return Token(token.number + 1000)


@node("Announce")
def announce(token: Token) -> Said:
    """Say which token it is."""
    return Said(str(token.number))


@node("Linger")
def linger(token: Token, seconds: float = 0.05) -> Token:
    """Take a while."""
    time.sleep(seconds)
    return token


@node("Engrave", lane="io")
def engrave(token: Token, folders: Folders = INJECTED) -> SavedFiles:
    """Save the number, many times over, as pictures are saved."""
    place = place_output(folders.output, f"numbers/{token.number}")
    path = write_atomically(place.folder, place.prefix, ".txt", f"{token.number}\n".encode() * 20_000)
    return SavedFiles("images", "output", place.subfolder, (path,))
