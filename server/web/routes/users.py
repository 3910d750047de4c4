"""`/users`: editors ask who there is. Here everybody is told of themselves alone: who they are, their key says."""

from typing import Literal

from pydantic import BaseModel, Field

from server.web.endpoint import get, post
from server.web.problems import Refused


class Users(BaseModel):
    """How an editor is to keep its owner's files: here, and with nothing left to be moved here."""

    storage: Literal["server"] = "server"
    migrated: bool = True


class NewUser(BaseModel):
    """Somebody else."""

    username: str = Field(default="", max_length=1000)


async def who_is_there() -> Users:
    """That files and settings are kept by this server, each owner's by themselves."""
    return Users()


async def add_user(body: NewUser) -> Users:
    """Refused: owners are those of keys, and keys are not made by whoever comes along."""
    raise Refused(
        400, f"make a key for {body.username or 'them'} instead, where the server runs: latentloom keys create"
    )


ROUTES = (get("/users", who_is_there), post("/users", add_user, need="admin"))
