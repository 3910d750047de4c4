"""What happens inside a sampler, one stage after the other."""

from nodes.checkpoints import load_checkpoint
from nodes.images import contact_sheet
from nodes.latents import decode, empty_latent, encode
from nodes.loading import load_image
from nodes.sampling import end, forward_diffusion, ksampler, random_noise, select_sampler, start, step
from nodes.saving import save_image
from nodes.schedules import basic_scheduler
from nodes.text import encode_text
from workflows.examples.embedded import MODEL, SIDE, batch_of


def steps() -> None:
    """Reverse diffusion one step at a time: the latent after every step, decoded, on one sheet."""
    count = 11
    model, clip, vae = load_checkpoint(ckpt_name=MODEL)
    positive = encode_text.titled("Prompt")(text="a yellow duck in a meadow by day", clip=clip)
    negative = encode_text.titled("Negative prompt")(text="", clip=clip)
    noise = random_noise(noise_seed=4)
    sigmas = basic_scheduler(model=model, scheduler="karras", steps=count)
    sampler = select_sampler(sampler_name="euler")
    blank = empty_latent(width=SIDE, height=SIDE)
    state = start(model=model, noise=noise, sampler=sampler, sigmas=sigmas, latent_image=blank)
    pictures = [decode(samples=end(model=model, state=state), vae=vae)]
    for index in range(count):
        state = step.titled(f"Step {index + 1}")(
            model=model, positive=positive, negative=negative, state=state, sigmas=sigmas, step=index, cfg=2.0
        )
        pictures.append(decode(samples=end(model=model, state=state), vae=vae))
    captions = ["noise", *(f"after step {index + 1}" for index in range(count))]
    sheet = contact_sheet(images=batch_of(pictures), captions="\n".join(captions), columns=4)
    save_image(images=sheet, filename_prefix="steps")


def forward_diffusion_sheet() -> None:
    """Forward diffusion: a picture dissolves into noise, level by level."""
    count = 11
    model, _, vae = load_checkpoint(ckpt_name=MODEL)
    picture = load_image(image="house.png").IMAGE
    latent = encode(pixels=picture, vae=vae)
    sigmas = basic_scheduler(model=model, scheduler="karras", steps=count)
    noise = random_noise(noise_seed=8)
    # The schedule falls from the highest level to none, so the sheet walks it backwards.
    pictures = [
        decode(
            samples=forward_diffusion.titled(f"Level {count - index}")(
                model=model, noise=noise, sigmas=sigmas, latent_image=latent, step=index
            ),
            vae=vae,
        )
        for index in range(count, -1, -1)
    ]
    captions = ["the picture", *(f"level {index} of {count}" for index in range(1, count + 1))]
    sheet = contact_sheet(images=batch_of(pictures), captions="\n".join(captions), columns=4)
    save_image(images=sheet, filename_prefix="forward_diffusion")


def guidance() -> None:
    """The same noise at several strengths of guidance."""
    scales = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)
    model, clip, vae = load_checkpoint(ckpt_name=MODEL)
    positive = encode_text.titled("Prompt")(text="a purple butterfly on a yellow background", clip=clip)
    negative = encode_text.titled("Negative prompt")(text="", clip=clip)
    blank = empty_latent(width=SIDE, height=SIDE)
    pictures = [
        decode(
            samples=ksampler.titled(f"cfg {cfg:g}")(
                model=model,
                seed=6,
                steps=16,
                cfg=cfg,
                sampler_name="dpmpp_2m",
                scheduler="normal",
                positive=positive,
                negative=negative,
                latent_image=blank,
            ),
            vae=vae,
        )
        for cfg in scales
    ]
    captions = "\n".join(f"cfg {cfg:g}" for cfg in scales)
    save_image(
        images=contact_sheet(images=batch_of(pictures), captions=captions, columns=4), filename_prefix="guidance"
    )
