"""What is wrong with a model on disk."""

from pathlib import Path


class ModelError(ValueError):
    """A model file or folder that cannot be used: which one, why, and what to do about it."""

    def __init__(self, path: Path, reason: str, remedy: str = "") -> None:
        self.path = path
        self.reason = reason
        self.remedy = remedy
        super().__init__(" ".join(part for part in (f"{path}: {reason}.", remedy) if part))


class WrongPrompt(ValueError):
    """A prompt was encoded for another kind of network."""

    def __init__(
        self, expected: int, found: int, what: str = "states", by: str = "the CLIP that belongs to the model"
    ) -> None:
        super().__init__(
            f"the prompt was encoded into {what} of width {found}, where {expected} is needed; encode it with {by}"
        )
        self.expected = expected
        self.found = found
