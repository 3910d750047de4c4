"""Workflows that branch, repeat, and go over lists."""

from nodes.batches import image_list_to_batch
from nodes.checkpoints import load_checkpoint
from nodes.flow import begin_while, calculate, compare, end_while, for_each, for_each_end, switch
from nodes.images import contact_sheet
from nodes.latents import decode, empty_latent, encode, upscale_latent
from nodes.lists import make_list, text_lines
from nodes.loading import load_image
from nodes.primitives import primitive_boolean, primitive_float, primitive_string, primitive_text
from nodes.sampling import ksampler, ksampler_advanced
from nodes.saving import save_image
from nodes.text import encode_text
from workflows.examples.embedded import MODEL, SIDE


def prompt_switch() -> None:
    """One prompt for the first steps, another for the rest: the second inherits the composition of the first."""
    model, clip, vae = load_checkpoint(ckpt_name=MODEL)
    first = encode_text.titled("First prompt")(text="a red apple on a blue background", clip=clip)
    second = encode_text.titled("Second prompt")(text="a red heart on a blue background", clip=clip)
    negative = encode_text.titled("Negative prompt")(text="", clip=clip)
    begun = ksampler_advanced.titled("First steps")(
        model=model,
        noise_seed=9,
        steps=20,
        cfg=2.0,
        sampler_name="euler",
        scheduler="normal",
        positive=first,
        negative=negative,
        latent_image=empty_latent(width=SIDE, height=SIDE),
        end_at_step=5,
        return_with_leftover_noise="enable",
    )
    finished = ksampler_advanced.titled("Remaining steps")(
        model=model,
        add_noise="disable",
        noise_seed=9,
        steps=20,
        cfg=2.0,
        sampler_name="euler",
        scheduler="normal",
        positive=second,
        negative=negative,
        latent_image=begun,
        start_at_step=5,
    )
    save_image(images=decode(samples=finished, vae=vae), filename_prefix="prompt_switch")


def switch_branches() -> None:
    """Two switches: which prompt is encoded, and whether the picture is enlarged. What is not taken is not run."""
    model, clip, vae = load_checkpoint(ckpt_name=MODEL)
    words = switch.titled("Which prompt")(
        on=primitive_boolean.titled("Night")(value=False),
        if_true=primitive_string.titled("Prompt by night")(value="a red house in the snow at night"),
        if_false=primitive_string.titled("Prompt by day")(value="a red house in a meadow by day"),
    )
    positive = encode_text.titled("Prompt")(text=words, clip=clip)
    negative = encode_text.titled("Negative prompt")(text="", clip=clip)
    small = ksampler.titled("First pass")(
        model=model,
        seed=11,
        steps=16,
        cfg=2.0,
        sampler_name="dpmpp_2m",
        scheduler="normal",
        positive=positive,
        negative=negative,
        latent_image=empty_latent(width=SIDE, height=SIDE),
    )
    large = ksampler.titled("Second pass")(
        model=model,
        seed=11,
        steps=16,
        cfg=2.0,
        sampler_name="dpmpp_2m",
        scheduler="normal",
        positive=positive,
        negative=negative,
        latent_image=upscale_latent(samples=small, upscale_method="bilinear", width=192, height=192),
        denoise=0.5,
    )
    latent = switch.titled("Which size")(
        on=primitive_boolean.titled("Enlarge")(value=True), if_true=large, if_false=small
    )
    save_image(images=decode(samples=latent, vae=vae), filename_prefix="switch")


def for_each_line() -> None:
    """One picture for each line of a text, put on one sheet. Another line is another turn; the others are kept."""
    model, clip, vae = load_checkpoint(ckpt_name=MODEL)
    negative = encode_text.titled("Negative prompt")(text="", clip=clip)
    blank = empty_latent(width=SIDE, height=SIDE)
    subjects = primitive_text.titled("Subjects")(
        value="a yellow duck at sea\na blue car in the desert\na green tree in the snow\n"
        "a pink mushroom in a meadow\na red boat at sea at sunset\na purple butterfly on a yellow background"
    )
    turn = for_each(items=text_lines(text=subjects))
    latent = ksampler(
        model=model,
        seed=turn.item_index,
        steps=16,
        cfg=2.0,
        sampler_name="dpmpp_2m",
        scheduler="normal",
        positive=encode_text.titled("Prompt")(text=turn.item, clip=clip),
        negative=negative,
        latent_image=blank,
    )
    pictures = for_each_end(loop=turn.loop, result=decode(samples=latent, vae=vae)).results
    sheet = contact_sheet(images=image_list_to_batch(images=pictures), captions=subjects, columns=3)
    save_image(images=sheet, filename_prefix="for_each")


def while_loop() -> None:
    """A picture is painted over again and again, each time a little less, until hardly anything would change."""
    model, clip, vae = load_checkpoint(ckpt_name=MODEL)
    positive = encode_text.titled("Prompt")(text="a red house in the snow at night", clip=clip)
    negative = encode_text.titled("Negative prompt")(text="", clip=clip)
    picture = load_image(image="house.png").IMAGE
    turn = begin_while(state=picture, state_2=primitive_float.titled("First denoise")(value=0.8), state_3=picture)
    latent = ksampler(
        model=model,
        seed=turn.turn,
        steps=16,
        cfg=2.0,
        sampler_name="euler",
        scheduler="normal",
        positive=positive,
        negative=negative,
        latent_image=encode(pixels=turn.state, vae=vae),
        denoise=turn.state_2,
    )
    painted = decode(samples=latent, vae=vae)
    less = calculate.titled("A little less")(a=turn.state_2, operation="*", b=0.7).FLOAT
    enough = compare.titled("Is there much to change?")(a=turn.state_2, comparison=">", b=0.2)
    done = end_while(
        loop=turn.loop,
        condition=enough,
        state=painted,
        state_2=less,
        state_3=make_list(item_1=turn.state_3, item_2=painted),
        most_turns=10,
    )
    captions = "\n".join(("the picture", "denoise 0.8", "denoise 0.56", "denoise 0.39", "denoise 0.27"))
    sheet = contact_sheet(images=image_list_to_batch(images=done.state_3), captions=captions, columns=5)
    save_image(images=sheet, filename_prefix="while")
