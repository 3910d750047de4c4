"""Which of ComfyUI's nodes for pictures (v0.3.64) are here, and why others are not: `latentloom nodes --reference`.

`reference.json` holds the names by stage, and reasons for those that are left out for good or for a while. CATALOGUE.md
is the table of it, and a test holds the two and the catalogue together.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pydantic import BaseModel

HERE = Path(__file__).parent
TABLE = HERE / "CATALOGUE.md"
COMMAND = "latentloom nodes --reference > nodes/CATALOGUE.md"


class Reference(BaseModel):
    """ComfyUI's nodes by stage, and why some are absent; those without a reason are here, or not yet."""

    nodes: dict[str, list[str]]
    absent: dict[str, str]

    @property
    def names(self) -> set[str]:
        return {name for names in self.nodes.values() for name in names}


def reference() -> Reference:
    return Reference.model_validate_json((HERE / "reference.json").read_bytes())


def table(known: Iterable[str]) -> str:
    """The table as Markdown, for the nodes that are known here."""
    listed, here = reference(), set(known)
    return "\n".join((*_lines(listed, here), *_beyond(sorted(here - listed.names))))


def _lines(listed: Reference, here: set[str]) -> Iterator[str]:
    yield "# ComfyUI's nodes for pictures, and which of them are here\n"
    yield f"Made by `{COMMAND}`. {len(listed.names & here)} of {len(listed.names)} are here, under the same names.\n"
    for stage, names in listed.nodes.items():
        yield f"## {stage}: {len(here.intersection(names))} of {len(names)}\n"
        yield "| node | here | |\n|---|---|---|"
        for name in names:
            yield (
                f"| `{name}` | yes | |"
                if name in here
                else f"| `{name}` | no | {listed.absent.get(name, 'Not yet.')} |"
            )
        yield ""


def _beyond(names: Sequence[str]) -> Iterator[str]:
    yield "## Beyond these\n"
    yield "Latentloom's own nodes, and some of ComfyUI's for other purposes:\n"
    yield from (f"- `{name}`" for name in names)
    yield ""
