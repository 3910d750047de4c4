"""Does a picture show what its prompt says? Asked of a judge that learnt from drawings alone."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from graph.builder import WorkflowBuilder
from graph.store import MemoryStore
from nodes.checkpoints import load_checkpoint
from nodes.engine import Engine
from nodes.latents import decode, empty_latent
from nodes.sampling import ksampler
from nodes.text import encode_text
from nodes.values import Image, Latent, Vae
from server.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import UInt8

Say = Callable[[str], None]

STEPS, CFG = 20, 2.0
MODEL = "loomlet"


def measure(settings: Settings, count: int, say: Say) -> None:
    """Make `count` pictures with the engine, as a workflow would, and let the judge name what they show."""
    from nodes.embedded.training import adherence

    engine = Engine(settings.folders(), store=MemoryStore(1 << 26))
    say(f"{MODEL}: euler, {STEPS} steps, cfg {CFG:g}, {count} pictures over three seeds")
    report = adherence.measure(
        lambda prompts, seeds, size: _paint(engine, prompts, seeds, size, say),
        count,
        rebuild=lambda pictures: _rebuild(engine, pictures),
    )
    say(report.text())


def _paint(
    engine: Engine, prompts: list[str], seeds: list[int], size: int, say: Say
) -> "UInt8[np.ndarray, 'count height width 3']":
    import numpy as np

    from nodes.picture_files import to_uint8

    pictures: list[Any] = []
    for prompt, seed in zip(prompts, seeds, strict=True):
        with WorkflowBuilder() as workflow:
            model, clip, vae = load_checkpoint(ckpt_name=MODEL)
            latent = ksampler(
                model=model,
                seed=seed,
                steps=STEPS,
                cfg=CFG,
                scheduler="normal",
                positive=encode_text(text=prompt, clip=clip),
                negative=encode_text(text="", clip=clip),
                latent_image=empty_latent(width=size, height=size),
            )
            picture: Any = decode(samples=latent, vae=vae)
        (image,) = engine.run(workflow, targets=[picture.step]).checked().outputs[picture.step]
        assert isinstance(image, Image)
        pictures.append(to_uint8(image.pixels)[0])
        if len(pictures) % 50 == 0:
            say(f"  {len(pictures)} of {len(prompts)} at {size} px")
    return np.stack(pictures)


def _rebuild(
    engine: Engine, pictures: "UInt8[np.ndarray, 'count height width 3']"
) -> "UInt8[np.ndarray, 'count height width 3']":
    """The pictures through the autoencoder and back."""
    import torch

    from nodes.latents import encode
    from nodes.picture_files import to_uint8

    with WorkflowBuilder() as workflow:
        _, _, reference = load_checkpoint(ckpt_name=MODEL)
        loaded: Any = reference
    vae = engine.run(workflow, targets=[loaded.step]).checked().outputs[loaded.step][2]
    assert isinstance(vae, Vae)
    image = Image(torch.as_tensor(pictures, dtype=torch.float32) / 255.0)
    latent: Latent = encode(pixels=image, vae=vae, models=engine.models)
    return to_uint8(decode(samples=latent, vae=vae, models=engine.models).pixels)
