"""Own nodes for whole servers: they leave a trace when they run, and wait until they are let through."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graph.node import node
from graph.values import Ui, Value


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
