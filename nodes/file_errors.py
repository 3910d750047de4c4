"""What can be wrong with a file, said in a sentence that tells what to do."""

from pathlib import Path


class PictureError(ValueError):
    """A picture that cannot be used."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"The picture {self.path} cannot be used: {self.reason}"


class VideoError(ValueError):
    """A video that cannot be used."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"The video {self.path} cannot be used: {self.reason}"


class LatentFileError(ValueError):
    """A .latent file that cannot be used."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"The latent file {self.path} cannot be used: {self.reason}"


class OutputError(OSError):
    """A place that cannot be written to."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__()
        # OSError would read a pair of arguments as number and text; pickling still needs them.
        self.args = (path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"Cannot save to {self.path}: {self.reason}"
