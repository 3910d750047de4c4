"""`latentloom keys`: keys made, shown and revoked on the database that a server uses."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from server.database.api_keys import ApiKey
from tests.commands import Said, latentloom
from tests.databases import opened


def keys(data: Path, *words: str) -> Said:
    # On a thread, for the command runs an event loop of its own.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: latentloom("keys", *words, data=data)).result()


def made(data: Path, *words: str) -> str:
    """A new key."""
    (line,) = keys(data, "add", *words).out.splitlines()
    return line


async def verified(data: Path, text: str) -> ApiKey | None:
    """What a server on this data folder makes of a key."""
    async with opened(f"sqlite:///{data / 'jobs.sqlite3'}") as world:
        return await world.keys.verify(text)


@pytest.mark.anyio
async def test_a_key_is_printed_once_and_opens_what_was_said(tmp_path: Path):
    text = made(tmp_path, "laptop", "--owner", "ann", "--scope", "read", "--scope", "admin")
    key = await verified(tmp_path, text)
    assert key is not None
    assert (key.name, key.owner, key.scopes) == ("laptop", "ann", {"read", "admin"})
    assert text not in keys(tmp_path, "list").out


@pytest.mark.anyio
async def test_a_key_belongs_to_its_name_and_may_submit_and_read_if_nothing_is_said(tmp_path: Path):
    key = await verified(tmp_path, made(tmp_path, "bob"))
    assert key is not None
    assert (key.owner, key.scopes, key.expires) == ("bob", {"submit", "read"}, None)


@pytest.mark.anyio
@pytest.mark.parametrize("by", ["name", "id"])
async def test_a_revoked_key_opens_nothing(tmp_path: Path, by: str):
    text = made(tmp_path, "laptop")
    meant = "laptop" if by == "name" else text.split("_")[1]
    assert keys(tmp_path, "revoke", meant).out == "revoked laptop of laptop\n"
    assert await verified(tmp_path, text) is None


def test_the_list_says_whose_keys_there_are_and_which_are_over(tmp_path: Path):
    assert "no keys yet" in keys(tmp_path, "list").out
    for name in ("old", "new"):
        keys(tmp_path, "add", name, "--owner", "ann", "--expires-in", "90d")
    keys(tmp_path, "revoke", "old")
    head, *rows = keys(tmp_path, "list").out.splitlines()
    assert head.split()[:4] == ["id", "name", "owner", "scopes"]
    assert [re.split(r"  +", row)[1:4] for row in rows] == [[name, "ann", "read,submit"] for name in ("old", "new")]
    assert ["revoked" in row for row in rows] == [True, False]
    assert "until" in rows[1]


def test_a_name_is_free_again_when_its_key_is_revoked(tmp_path: Path):
    keys(tmp_path, "add", "laptop")
    again = keys(tmp_path, "add", "laptop")
    assert (again.code, "there is a key 'laptop' already" in again.err) == (2, True)
    keys(tmp_path, "revoke", "laptop")
    assert keys(tmp_path, "add", "laptop").code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("revoke", "nobody"), "is the name or id of no key"),
        (("add", " "), "a name by which it can be revoked"),
        (("add", "x" * 1001), "at most 1000"),
        (("add", "a", "--scope", "root"), "'root' is not one of"),
        (("add", "a", "--expires-in", "9999999999d"), "beyond the calendar"),
        (("--database", "mysql://somewhere/jobs", "list"), "use postgresql+asyncpg"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(tmp_path: Path, words: tuple[str, ...], said: str):
    refused = keys(tmp_path, *words)
    assert refused.code != 0 and said in refused.err


def test_another_database_than_the_usual_one_can_be_meant(tmp_path: Path):
    place = tmp_path / "elsewhere.sqlite3"
    keys(tmp_path, "--database", str(place), "add", "laptop")
    assert "laptop" in keys(tmp_path, "--database", f"sqlite:///{place}", "list").out
    assert "no keys yet" in keys(tmp_path, "list").out
