"""Workflows that look at the pictures they make."""

from nodes.checkpoints import load_checkpoint
from nodes.images import blend_images_by_mask, contact_sheet
from nodes.latents import decode, empty_latent, encode, set_noise_mask
from nodes.lists import list_item
from nodes.loading import load_image
from nodes.masks import grow_mask, mask_to_image
from nodes.sampling import ksampler
from nodes.saving import save_image
from nodes.text import encode_text
from nodes.vision.diffusion_classifier import classify_by_denoising
from nodes.vision.diffusion_mask import mask_by_prompts
from nodes.vision.guidance import classifier_guidance
from nodes.vision.models import load_vision_model
from nodes.vision.similarity import rank_by_prompt
from workflows.examples.embedded import MODEL, SIDE, batch_of


def best_of_batch() -> None:
    """Eight pictures of a vague prompt, and the four that fit a precise one best, with their scores, best first."""
    model, clip, vae = load_checkpoint(ckpt_name=MODEL)
    latent = ksampler(
        model=model,
        seed=1,
        steps=12,
        cfg=2.0,
        sampler_name="dpmpp_2m",
        scheduler="normal",
        positive=encode_text.titled("Prompt")(text="a boat", clip=clip),
        negative=encode_text.titled("Negative prompt")(text="", clip=clip),
        latent_image=empty_latent(width=SIDE, height=SIDE, batch_size=8),
    )
    ranked = rank_by_prompt.titled("Rank by another prompt")(
        vision_model=load_vision_model(model_name=MODEL),
        image=decode(samples=latent, vae=vae),
        text="an orange boat on a white background",
        best=4,
    )
    save_image(images=contact_sheet(images=ranked.images, columns=4), filename_prefix="rank_by_prompt")


def guided_digits() -> None:
    """Classifier guidance: the prompt asks for some digit, and a classifier leads the same noise to four of them."""
    model, clip, vae = load_checkpoint(ckpt_name=MODEL)
    classifier = load_vision_model(model_name=f"{MODEL}-digit")
    positive = encode_text.titled("Prompt")(text="a blue handwritten digit on a white background", clip=clip)
    negative = encode_text.titled("Negative prompt")(text="", clip=clip)
    blank = empty_latent(width=SIDE, height=SIDE)
    labels = ("two", "three", "five", "seven")
    guided = [
        classifier_guidance.titled(f"Towards {label}")(
            model=model, vae=vae, vision_model=classifier, label=label, strength=15.0, through_network=True
        )
        for label in labels
    ]
    pictures = [
        decode(
            samples=ksampler(
                model=each,
                seed=5,
                steps=12,
                cfg=1.0,
                sampler_name="euler",
                scheduler="normal",
                positive=positive,
                negative=negative,
                latent_image=blank,
            ),
            vae=vae,
        )
        for each in (model, *guided)
    ]
    captions = "\n".join(("no guidance", *labels))
    sheet = contact_sheet(images=batch_of(pictures), captions=captions, columns=5)
    save_image(images=sheet, filename_prefix="guided_digits")


def replace_object() -> None:
    """Detect, mask, inpaint: find what the picture shows, mask where that is, and paint something else there alone."""
    model, clip, vae = load_checkpoint(ckpt_name=MODEL)
    picture = load_image(image="house.png").IMAGE
    kinds = "\n".join(f"a {kind} in a meadow by day" for kind in ("duck", "car", "house", "boat"))
    found = classify_by_denoising.titled("What does it show?")(
        model=model, clip=clip, vae=vae, image=picture, prompts=kinds, levels=4, draws=1
    )
    positive = encode_text.titled("What is to be there")(text="a green tree in a meadow by day", clip=clip)
    mask = grow_mask(
        mask=mask_by_prompts(
            model=model,
            vae=vae,
            image=picture,
            positive=positive,
            negative=encode_text.titled("What is there")(text=list_item(items=found.labels), clip=clip),
        ),
        expand=10,
    )
    latent = ksampler(
        model=model,
        seed=5,
        steps=20,
        cfg=2.0,
        sampler_name="euler",
        scheduler="normal",
        positive=positive,
        negative=encode_text.titled("Negative prompt")(text="", clip=clip),
        latent_image=set_noise_mask(samples=encode(pixels=picture, vae=vae), mask=mask),
    )
    painted = blend_images_by_mask(image1=picture, image2=decode(samples=latent, vae=vae), mask=mask)
    shown = batch_of([picture, mask_to_image(mask=mask), painted])
    sheet = contact_sheet(images=shown, captions="the picture\nthe mask\npainted anew", columns=3)
    save_image(images=sheet, filename_prefix="replace_object")
