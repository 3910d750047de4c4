"""Pictures from prompts and from other pictures."""

from nodes.checkpoints import load_checkpoint
from nodes.images import contact_sheet
from nodes.latents import decode, empty_latent, encode, upscale_latent
from nodes.loading import load_image
from nodes.sampling import ksampler
from nodes.saving import save_image
from nodes.text import encode_text
from workflows.examples.embedded import MODEL, SIDE, batch_of


def text_to_image() -> None:
    """A prompt becomes a picture."""
    model, clip, vae = load_checkpoint(ckpt_name=MODEL)
    latent = ksampler(
        model=model,
        seed=11,
        steps=20,
        cfg=2.0,
        sampler_name="euler",
        scheduler="normal",
        positive=encode_text.titled("Prompt")(text="a red house in the snow at night", clip=clip),
        negative=encode_text.titled("Negative prompt")(text="", clip=clip),
        latent_image=empty_latent(width=SIDE, height=SIDE),
    )
    save_image(images=decode(samples=latent, vae=vae), filename_prefix="text_to_image")


def image_to_image() -> None:
    """A picture becomes another one of the same composition: denoise below 1 keeps part of it."""
    model, clip, vae = load_checkpoint(ckpt_name=MODEL)
    latent = ksampler(
        model=model,
        seed=3,
        steps=20,
        cfg=2.0,
        sampler_name="dpmpp_2m",
        scheduler="karras",
        positive=encode_text.titled("Prompt")(text="a blue boat at sea at sunset", clip=clip),
        negative=encode_text.titled("Negative prompt")(text="", clip=clip),
        latent_image=encode(pixels=load_image(image="boat.png").IMAGE, vae=vae),
        denoise=0.75,
    )
    save_image(images=decode(samples=latent, vae=vae), filename_prefix="image_to_image")


def two_pass() -> None:
    """Small first, then enlarged as a latent and sampled again at the larger size."""
    model, clip, vae = load_checkpoint(ckpt_name=MODEL)
    positive = encode_text.titled("Prompt")(text="a pink mushroom in a meadow by day", clip=clip)
    negative = encode_text.titled("Negative prompt")(text="", clip=clip)
    small = ksampler.titled("First pass")(
        model=model,
        seed=10,
        steps=20,
        cfg=2.0,
        sampler_name="euler",
        scheduler="normal",
        positive=positive,
        negative=negative,
        latent_image=empty_latent(width=SIDE, height=SIDE),
    )
    large = ksampler.titled("Second pass")(
        model=model,
        seed=10,
        steps=20,
        cfg=2.0,
        sampler_name="euler",
        scheduler="normal",
        positive=positive,
        negative=negative,
        latent_image=upscale_latent(samples=small, upscale_method="bilinear", width=192, height=192),
        denoise=0.5,
    )
    save_image(images=decode(samples=large, vae=vae), filename_prefix="two_pass")


def handwritten_digits() -> None:
    """Ten prompts, ten handwritten digits."""
    model, clip, vae = load_checkpoint(ckpt_name=MODEL)
    negative = encode_text.titled("Negative prompt")(text="", clip=clip)
    blank = empty_latent(width=SIDE, height=SIDE)
    words = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    colours = ("red", "blue", "green", "purple", "orange", "pink", "red", "blue", "green", "purple")
    captions = [f"a handwritten {colour} {word}" for colour, word in zip(colours, words, strict=True)]
    pictures = [
        decode(
            samples=ksampler(
                model=model,
                seed=11,
                steps=16,
                cfg=2.0,
                sampler_name="dpmpp_2m",
                scheduler="normal",
                positive=encode_text.titled(caption)(text=f"{caption} on a white background", clip=clip),
                negative=negative,
                latent_image=blank,
            ),
            vae=vae,
        )
        for caption in captions
    ]
    sheet = contact_sheet(images=batch_of(pictures), captions="\n".join(captions), columns=5)
    save_image(images=sheet, filename_prefix="handwritten_digits")
