"""Pictures of which parts are painted: by masks, beyond the border, by areas."""

from nodes.checkpoints import load_checkpoint
from nodes.images import blend_images_by_mask, pad_for_outpainting
from nodes.latents import blend_latents_by_mask, decode, empty_latent, encode, set_noise_mask
from nodes.loading import load_image, load_mask
from nodes.masks import composite_masks, feather_mask, grow_mask, solid_mask
from nodes.prompt_areas import set_area_percentage
from nodes.sampling import ksampler, ksampler_advanced
from nodes.saving import save_image
from nodes.text import combine, encode_text
from workflows.examples.embedded import MODEL, SIDE


def inpaint() -> None:
    """The masked area is painted anew; outside the mask's soft edge every pixel stays as it was."""
    model, clip, vae = load_checkpoint(ckpt_name=MODEL)
    picture = load_image(image="house.png").IMAGE
    mask = grow_mask(mask=load_mask(image="house_mask.png", channel="red"), expand=6)
    latent = ksampler(
        model=model,
        seed=5,
        steps=20,
        cfg=2.0,
        sampler_name="euler",
        scheduler="normal",
        positive=encode_text.titled("Prompt")(text="a green tree in a meadow by day", clip=clip),
        negative=encode_text.titled("Negative prompt")(text="", clip=clip),
        latent_image=set_noise_mask(samples=encode(pixels=picture, vae=vae), mask=mask),
    )
    painted = decode(samples=latent, vae=vae)
    save_image(images=blend_images_by_mask(image1=picture, image2=painted, mask=mask), filename_prefix="inpaint")


def outpaint() -> None:
    """The picture grows to the right and left; what was there is kept."""
    model, clip, vae = load_checkpoint(ckpt_name=MODEL)
    picture, mask = pad_for_outpainting(image=load_image(image="boat.png").IMAGE, left=32, right=32, feathering=16)
    latent = ksampler(
        model=model,
        seed=2,
        steps=20,
        cfg=2.0,
        sampler_name="euler",
        scheduler="normal",
        positive=encode_text.titled("Prompt")(text="a boat at sea by day", clip=clip),
        negative=encode_text.titled("Negative prompt")(text="", clip=clip),
        latent_image=set_noise_mask(samples=encode(pixels=picture, vae=vae), mask=mask),
    )
    painted = decode(samples=latent, vae=vae)
    save_image(images=blend_images_by_mask(image1=picture, image2=painted, mask=mask), filename_prefix="outpaint")


def mask_blend() -> None:
    """Night and day through a mask: each prompt paints its half, and the last steps draw the halves together."""
    model, clip, vae = load_checkpoint(ckpt_name=MODEL)
    left = encode_text.titled("Left prompt")(text="a green tree in the snow at night", clip=clip)
    right = encode_text.titled("Right prompt")(text="a green tree in a meadow by day", clip=clip)
    negative = encode_text.titled("Negative prompt")(text="", clip=clip)
    half = solid_mask.titled("Right half")(value=1.0, width=SIDE // 2, height=SIDE)
    soft = feather_mask(mask=half, left=32)
    mask = composite_masks(
        destination=solid_mask.titled("Nothing")(value=0.0, width=SIDE, height=SIDE),
        source=soft,
        x=SIDE // 2,
        operation="add",
    )
    halves = [
        ksampler_advanced.titled(title)(
            model=model,
            noise_seed=1,
            steps=20,
            cfg=2.0,
            sampler_name="euler",
            scheduler="normal",
            positive=positive,
            negative=negative,
            latent_image=empty_latent(width=SIDE, height=SIDE),
            end_at_step=18,
            return_with_leftover_noise="enable",
        )
        for title, positive in (("Left half", left), ("Right half", right))
    ]
    blended = blend_latents_by_mask(samples1=halves[0], samples2=halves[1], mask=mask)
    finished = ksampler_advanced.titled("Together")(
        model=model,
        add_noise="disable",
        noise_seed=1,
        steps=20,
        cfg=1.0,
        sampler_name="euler",
        scheduler="normal",
        positive=negative,
        negative=negative,
        latent_image=blended,
        start_at_step=18,
    )
    save_image(images=decode(samples=finished, vae=vae), filename_prefix="mask_blend")


def areas() -> None:
    """Two prompts, each for its part of one picture."""
    model, clip, vae = load_checkpoint(ckpt_name=MODEL)
    left = encode_text.titled("Left prompt")(text="a red car in a meadow by day", clip=clip)
    right = encode_text.titled("Right prompt")(text="a blue house in a meadow by day", clip=clip)
    latent = ksampler(
        model=model,
        seed=1,
        steps=20,
        cfg=2.0,
        sampler_name="euler",
        scheduler="normal",
        positive=combine(
            conditioning_1=set_area_percentage(conditioning=left, width=0.55),
            conditioning_2=set_area_percentage(conditioning=right, width=0.55, x=0.45),
        ),
        negative=encode_text.titled("Negative prompt")(text="", clip=clip),
        latent_image=empty_latent(width=192, height=SIDE),
    )
    save_image(images=decode(samples=latent, vae=vae), filename_prefix="areas")
