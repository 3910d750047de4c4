"""`latentloom` as it is installed: Ctrl-C is answered in one line from the first import on."""

import sys


def main() -> None:
    try:
        from server.__main__ import main as commands

        commands()
    except KeyboardInterrupt:
        sys.exit(130)
