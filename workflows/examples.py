"""The example workflows as Python. Each function calls nodes; inside a builder that gives a workflow.

    python -m workflows.examples steps                  # run it; the pictures go to ./output
    python -m workflows.examples steps --save my.json   # or keep it as a workflow file
    python -m workflows.examples --save-all workflows   # write every example's JSON

The JSON files beside this module are these functions, saved.
"""

from collections.abc import Callable
from pathlib import Path

import click

from graph.builder import WorkflowBuilder
from graph.errors import RunFailed
from nodes.batches import image_list_to_batch
from nodes.checkpoints import load_checkpoint
from nodes.flow import begin_while, calculate, compare, end_while, for_each, for_each_end, switch
from nodes.images import batch_images, blend_images_by_mask, contact_sheet, pad_for_outpainting
from nodes.latents import blend_latents_by_mask, decode, empty_latent, encode, set_noise_mask, upscale_latent
from nodes.lists import list_item, make_list, text_lines
from nodes.loading import load_image, load_mask
from nodes.masks import composite_masks, feather_mask, grow_mask, mask_to_image, solid_mask
from nodes.primitives import primitive_boolean, primitive_float, primitive_string, primitive_text
from nodes.prompt_areas import set_area_percentage
from nodes.sampling import (
    end,
    forward_diffusion,
    ksampler,
    ksampler_advanced,
    random_noise,
    select_sampler,
    start,
    step,
)
from nodes.saving import save_image
from nodes.schedules import basic_scheduler
from nodes.text import combine, encode_text
from nodes.values import Image
from nodes.vision.diffusion_classifier import classify_by_denoising
from nodes.vision.diffusion_mask import mask_by_prompts
from nodes.vision.guidance import classifier_guidance
from nodes.vision.models import load_vision_model
from nodes.vision.similarity import rank_by_prompt

MODEL = "loomlet"
SIDE = 128


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
    sheet = contact_sheet(images=_batch(pictures), captions="\n".join(captions), columns=5)
    save_image(images=sheet, filename_prefix="handwritten_digits")


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
    sheet = contact_sheet(images=_batch(pictures), captions="\n".join(captions), columns=4)
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
    sheet = contact_sheet(images=_batch(pictures), captions="\n".join(captions), columns=4)
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
    save_image(images=contact_sheet(images=_batch(pictures), captions=captions, columns=4), filename_prefix="guidance")


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
    sheet = contact_sheet(images=_batch(pictures), captions=captions, columns=5)
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
    shown = _batch([picture, mask_to_image(mask=mask), painted])
    sheet = contact_sheet(images=shown, captions="the picture\nthe mask\npainted anew", columns=3)
    save_image(images=sheet, filename_prefix="replace_object")


EXAMPLES: dict[str, Callable[[], None]] = {
    "text_to_image": text_to_image,
    "image_to_image": image_to_image,
    "inpaint": inpaint,
    "outpaint": outpaint,
    "handwritten_digits": handwritten_digits,
    "steps": steps,
    "forward_diffusion": forward_diffusion_sheet,
    "guidance": guidance,
    "prompt_switch": prompt_switch,
    "mask_blend": mask_blend,
    "areas": areas,
    "two_pass": two_pass,
    "switch": switch_branches,
    "for_each": for_each_line,
    "while": while_loop,
    "rank_by_prompt": best_of_batch,
    "guided_digits": guided_digits,
    "replace_object": replace_object,
}


def build(name: str) -> WorkflowBuilder:
    """An example as a workflow."""
    with WorkflowBuilder() as workflow:
        EXAMPLES[name]()
    return workflow


def _batch(pictures: list[Image]) -> Image:
    batch = pictures[0]
    for picture in pictures[1:]:
        batch = batch_images(image1=batch, image2=picture)
    return batch


@click.command()
@click.argument("name", type=click.Choice(list(EXAMPLES)), metavar="[NAME]", required=False)
@click.option(
    "--save", type=click.Path(path_type=Path, dir_okay=False), help="Write the workflow to this file instead."
)
@click.option(
    "--save-all", type=click.Path(path_type=Path, file_okay=False), help="Write every example to this folder."
)
@click.option("--output", type=click.Path(path_type=Path), default=Path("output"), show_default=True)
def main(name: str | None, save: Path | None, save_all: Path | None, output: Path) -> None:
    """Run the example NAME, or save it."""
    if name is None and save_all is None:
        raise click.UsageError(f"which example? {', '.join(EXAMPLES)}")
    try:
        if save_all is not None:
            paths = [build(each).save(save_all / f"{each}.json") for each in EXAMPLES]
        elif save is not None:
            paths = [build(str(name)).save(save)]
        else:
            paths = _pictures(str(name), output)
    except (OSError, RunFailed) as error:
        raise click.ClickException(str(error)) from error
    for path in paths:
        click.echo(path)


def _pictures(name: str, output: Path) -> list[Path]:
    """Run an example; the files it wrote."""
    from nodes.engine import Engine, usual_folders

    result = Engine(usual_folders(output=output)).run(build(name)).checked()
    return [path for shown in result.shown.values() for path in getattr(shown, "paths", ())]


if __name__ == "__main__":
    main()
