"""Come in by the front door: the command line, in this process or in one of its own."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from PIL import Image

from server.__main__ import main


@dataclass(frozen=True, slots=True)
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def files(self) -> list[Path]:
        return [Path(line) for line in self.out.splitlines() if line.endswith((".png", ".latent"))]

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


def latentloom(*words: str | Path, data: Path, given: str | bytes | None = None) -> Said:
    """Run a command in this process with a data folder of its own."""
    result = CliRunner().invoke(main, ["--data", str(data), *map(str, words)], input=given)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return Said(result.exit_code, result.stdout, result.stderr)


def process(*words: str | Path, data: Path, **options: Any) -> "subprocess.Popen[str]":
    """Start a command in a process of its own."""
    command = [sys.executable, "-m", "server", "--data", str(data), *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def opened(path: Path) -> Image.Image:
    """A picture, read as a whole."""
    with Image.open(path) as image:
        return image.copy()


def saved(folder: Path, document: dict[str, Any]) -> Path:
    """A workflow file."""
    path = folder / "workflow.json"
    path.write_text(json.dumps(document))
    return path
