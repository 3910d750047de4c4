"""The embedded model: a small latent diffusion model that ships inside the package."""

from pathlib import Path

LOOMLET = Path(__file__).parent / "loomlet"
"""The checkpoint, in diffusers' folder layout."""

JUDGE = Path(__file__).parent / "judge.safetensors"
"""The classifier that measures whether a picture shows what its prompt says."""

DIRECTIONS = Path(__file__).parent / "directions.safetensors"
"""How the text encoder says each of the classifier's answers."""
