"""The environment of processes that are measured."""

import os


def usual_environment() -> dict[str, str]:
    """This process's, in which Python keeps what it has compiled, as it does unless it is told not to."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
