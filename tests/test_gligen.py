"""GLIGEN: phrases in boxes, as diffusers' pipeline tells a network of them."""

from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from graph.builder import WorkflowBuilder
from graph.folders import Folders
from nodes.checkpoints import load_checkpoint
from nodes.engine import Engine
from nodes.gligen import add_box, load_gligen
from nodes.gligen_layout import gligen_plan
from nodes.grounding import Layers, gligen_layers
from nodes.identification import Identified, identify
from nodes.latents import empty_latent
from nodes.model_errors import ModelError
from nodes.precision import Precision
from nodes.prompt_areas import set_area
from nodes.safetensors_header import read_header
from nodes.sampling import ksampler, ksampler_advanced
from nodes.text import encode_text
from nodes.unet_patches import free_u_2
from nodes.values import Latent
from tests import original_layouts as layouts
from tests import small_models, tiny_models
from tests.small_models import SMALL
from tests.test_families import ASKED, AWAY, CFG, SEED, SIDE, STEPS, TEXT, near, start
from tests.test_families import pipeline as family_pipeline

pytestmark = pytest.mark.usefixtures("packed_as_large_ones")

BLOCKS = {
    "down_blocks.0.attentions.0": "input_blocks.1.1",
    "mid_block.attentions.0": "middle_block.1",
    "up_blocks.1.attentions.0": "output_blocks.2.1",
    "up_blocks.1.attentions.1": "output_blocks.3.1",
}
"""The transformers of the small Stable Diffusion 1 in both layouts."""
CAT, DOG = ("cat", 24, 32, 8, 16), ("the dog", 16, 8, 40, 0)
"""A phrase, and width, height, x and y of its box."""

SD1_BLOCKS = {
    **{
        f"input_blocks.{at}": width
        for at, width in zip((1, 2, 4, 5, 7, 8), (320, 320, 640, 640, 1280, 1280), strict=True)
    },
    "middle_block": 1280,
    **{f"output_blocks.{3 + at}": width for at, width in enumerate((1280,) * 3 + (640,) * 3 + (320,) * 3)},
}
"""Where Stable Diffusion 1 attends to a text, and how wide it is there."""

Boxes = tuple[tuple[str, int, int, int, int], ...]


def grounded_unet(folders: Folders) -> Any:
    """diffusers' own network with such layers, which have random weights and open gates."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    folder, made = folders.data / "SD 1" / "unet", cast(Any, UNet2DConditionModel)
    unet = made.from_config({**made.load_config(folder), "attention_type": "gated"})
    own = {name: weight for name, weight in unet.state_dict().items() if ".fuser." in name or "position_net" in name}
    random = layouts.random_weights({name: tuple(weight.shape) for name, weight in own.items()}, seed=4)
    gates = {name: torch.tensor(0.5) for name in own if "alpha" in name}
    unet.load_state_dict(tiny_models.load_weights(folder / "diffusion_pytorch_model.safetensors") | random | gates)
    return unet.eval()


def as_published(unet: Any) -> dict[str, Tensor]:
    """Its layers by their names in the original layout."""
    found: dict[str, Tensor] = {}
    for name, weight in unet.state_dict().items():
        if name.startswith("position_net."):
            found[name] = weight
        elif ".fuser." in name:
            block, rest = name.split(".transformer_blocks.")
            found[f"{BLOCKS[block]}.transformer_blocks.{rest}"] = weight
    return found


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    found = Folders.below(tmp_path_factory.mktemp("data"))
    tokenizer = found.models("tokenizers") / "clip"
    tiny_models.write_tokenizer(tokenizer)
    for family in ("SD 1", "SD 2"):
        checkpoint = found.models("checkpoints") / f"{family}.safetensors"
        weights = small_models.write_file(checkpoint, SMALL[family], tokenizer)
        small_models.write_folder(found.data / family, SMALL[family], weights)
    layouts.write_weights(found.models("gligen") / "tiny.safetensors", as_published(grounded_unet(found)))
    return found


@pytest.fixture(scope="module")
def engine(folders: Folders) -> Engine:
    return Engine(folders, precision="fp32")


def sampling(
    *boxes: tuple[str, int, int, int, int],
    cfg: float = CFG,
    parts: bool = False,
    family: str = "SD 1",
    free_u: bool = False,
    whole_area: bool = False,
) -> tuple[WorkflowBuilder, str]:
    """A workflow whose positive prompt says what is where."""
    with WorkflowBuilder() as workflow:
        model, clip, _ = load_checkpoint(ckpt_name=f"{family}.safetensors")
        gligen = load_gligen(gligen_name="tiny.safetensors")
        positive: Any = encode_text(text=TEXT, clip=clip)
        for text, width, height, x, y in boxes:
            positive = add_box(positive, clip, gligen, text, width, height, x, y)
        model = free_u_2(model=model) if free_u else model
        positive = set_area(positive, SIDE, SIDE) if whole_area else positive
        asked: Any = {
            "model": model, "steps": STEPS, "cfg": cfg, "sampler_name": "euler", "scheduler": "normal",
            "positive": positive, "negative": encode_text(text=AWAY, clip=clip),
        }  # fmt: skip
        latent: Any = empty_latent(SIDE, SIDE, 2)
        if parts:
            latent = ksampler_advanced(
                **asked, noise_seed=SEED, latent_image=latent, end_at_step=2, return_with_leftover_noise="enable"
            )
            asked |= {"noise_seed": SEED, "add_noise": "disable", "start_at_step": 2}
            latent = ksampler_advanced(**asked, latent_image=latent)
        else:
            latent = ksampler(**asked, seed=SEED, latent_image=latent)
    return workflow, latent.step


def sampled(engine: Engine, *boxes: tuple[str, int, int, int, int], **named: Any) -> Tensor:
    workflow, step = sampling(*boxes, **named)
    return cast(Latent, engine.run(workflow, targets=[step]).checked().outputs[step][0]).samples


def pipeline(folders: Folders, boxes: Boxes, cfg: float) -> Tensor:
    import diffusers

    plain = family_pipeline(folders.data / "SD 1")
    unet = grounded_unet(folders)
    made = cast(Any, diffusers).StableDiffusionGLIGENPipeline(
        **{name: part for name, part in plain.components.items() if name not in ("unet", "image_encoder")}, unet=unet
    )
    made.set_progress_bar_config(disable=True)

    def tell_both_sides(module: Any, args: Any, named: Any) -> None:
        """diffusers tells the negative side that there is nothing; the reference tells it the same."""
        masks = named["cross_attention_kwargs"]["gligen"]["masks"]
        if cfg > 1:
            masks[: len(masks) // 2] = masks[len(masks) // 2 :]

    unet.register_forward_pre_hook(tell_both_sides, with_kwargs=True)
    shares = [[x / SIDE, y / SIDE, (x + width) / SIDE, (y + height) / SIDE] for _, width, height, x, y in boxes]
    return made(
        **{**ASKED, "prompt": TEXT, "negative_prompt": AWAY, "guidance_scale": cfg}, num_images_per_prompt=2,
        height=SIDE, width=SIDE, latents=start(), gligen_phrases=[each[0] for each in boxes], gligen_boxes=shares,
        gligen_scheduled_sampling_beta=1.0,
    ).images  # fmt: skip


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning", "ignore:.*deprecated.*:FutureWarning")
@pytest.mark.parametrize(("boxes", "cfg"), [((CAT,), 1.0), ((CAT, DOG), 1.0), ((CAT, DOG), CFG)])
def test_the_latents_are_those_of_diffusers_pipeline(boxes: Boxes, cfg: float, folders: Folders, engine: Engine):
    ours = sampled(engine, *boxes, cfg=cfg)
    near(ours * 0.18215, pipeline(folders, boxes, cfg))
    assert not torch.allclose(ours, sampled(engine, cfg=cfg), atol=0.01)


def test_more_than_thirty_boxes_count_as_thirty(engine: Engine):
    many = tuple(("cat", 8, 8, 8 * (at % 7), 8 * (at // 7)) for at in range(31))
    assert torch.equal(sampled(engine, *many), sampled(engine, *many[:30]))
    assert not torch.equal(sampled(engine, *many[:30]), sampled(engine, *many[:29]))


def test_prompts_with_boxes_and_without_have_passes_of_their_own(engine: Engine):
    """A prompt for an area takes no part in the sharing of boxes, and its partner is asked as it was."""
    alone = sampled(engine, CAT, whole_area=True)
    assert not torch.equal(alone, sampled(engine, CAT)) and not torch.equal(alone, sampled(engine))


def test_it_works_together_with_other_patches(engine: Engine):
    both = sampled(engine, CAT, free_u=True)
    assert not torch.equal(both, sampled(engine, CAT))
    assert not torch.equal(both, sampled(engine, free_u=True))


def test_sampling_whole_and_in_parts_is_the_same(engine: Engine):
    assert torch.equal(sampled(engine, CAT, DOG), sampled(engine, CAT, DOG, parts=True))


def test_keys_change_exactly_when_the_picture_would(engine: Engine):
    def key(*boxes: tuple[str, int, int, int, int]) -> Any:
        workflow, step = sampling(*boxes)
        return engine.keys(engine.resolve(workflow, targets=[step]))[step]

    moved = [("cat", 24, 32, 8, 24), ("cat", 16, 32, 8, 16), ("dog", 24, 32, 8, 16)]
    keys = [key(), key(CAT), key(DOG), key(CAT, DOG), *(key(each) for each in moved)]
    assert len(set(keys)) == len(keys) and key(CAT) == keys[1]


def test_a_model_of_another_family_is_refused_with_both_names(engine: Engine):
    workflow, step = sampling(CAT, family="SD 2")
    [failure] = engine.run(workflow, targets=[step]).failures
    assert "GLIGEN (original layout), which does not fit the U-Net of 'SD 2.safetensors' (SD 2)" in str(failure)
    assert "for input_blocks.1.1.transformer_blocks.0 it has a layer of 32 x 64" in str(failure)


def test_a_published_file_is_told_by_its_shapes(folders: Folders):
    header = read_header(folders.models("gligen") / "tiny.safetensors")
    wide = {name: entry.model_copy(update={"shape": (32, 768)}) for name, entry in header.items() if "linear.w" in name}
    found = identify(header | wide)
    assert isinstance(found, Identified) and str(found) == "SD 1 GLIGEN (original layout)"


def test_every_layer_for_a_network_of_full_size_has_its_place():
    """diffusers' own layers, built from a published file's shapes, want exactly what it holds."""
    shapes: dict[str, tuple[int, ...]] = {
        "position_net.null_positive_feature": (768,),
        "position_net.null_position_feature": (64,),
        **layouts.linear("position_net.linears.0", 512, 832),
        **layouts.linear("position_net.linears.2", 512, 512),
        **layouts.linear("position_net.linears.4", 768, 512),
    }
    for block, width in SD1_BLOCKS.items():
        start = f"{block}.1.transformer_blocks.0.fuser"
        shapes |= {f"{start}.alpha_attn": (), f"{start}.alpha_dense": ()}
        shapes |= layouts.linear(f"{start}.linear", width, 768) | layouts.linear(f"{start}.attn.to_out.0", width, width)
        for name in ("to_q", "to_k", "to_v"):
            shapes |= layouts.linear(f"{start}.attn.{name}", width, width, bias=False)
        shapes |= layouts.linear(f"{start}.ff.net.0.proj", 8 * width, width)
        shapes |= layouts.linear(f"{start}.ff.net.2", width, 4 * width)
        shapes |= layouts.norm(f"{start}.norm1", width) | layouts.norm(f"{start}.norm2", width)
    plan = gligen_plan(shapes)
    with torch.device("meta"):
        wanted = Layers(plan.config).state_dict()
    places = {plan.places(name)[0].name: tuple(weight.shape) for name, weight in wanted.items()}
    assert places == shapes
    own = {name: shape for name, shape in layouts.unet(layouts.SD1).items() if name.endswith(".attn2.to_k.weight")}
    assert {name.removesuffix(".1.transformer_blocks.0.attn2.to_k.weight"): w for name, (w, _) in own.items()} == (
        SD1_BLOCKS
    )


def without(part: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda weights: {name: tensor for name, tensor in weights.items() if part not in name}


BAD: dict[str, tuple[Callable[[dict[str, Tensor]], dict[str, Tensor]], str]] = {
    "no layers": (without(".fuser."), "not a GLIGEN: there is no input_blocks.1.1.transformer_blocks.0.fuser"),
    "no positions": (without("position_net."), "not a GLIGEN: there is no position_net.null_positive_feature"),
    "pictures": (
        lambda weights: weights | {"position_net.linears_image.0.weight": torch.zeros(1, 1)},
        "takes pictures in boxes, too, which is not supported",
    ),
    "a text encoder": (
        lambda _: layouts.random_weights(layouts.clip(layouts.Text(64, 1, 64, 9))),
        r"it is a text encoder \(transformers' names\), not a GLIGEN",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_is_none_or_not_whole_is_refused_with_the_reason(case: str, folders: Folders):
    change, message = BAD[case]
    weights = tiny_models.load_weights(folders.models("gligen") / "tiny.safetensors")
    layouts.write_weights(folders.models("gligen") / f"{case}.safetensors", change(weights))
    with pytest.raises(ModelError, match=message):
        load_gligen(f"{case}.safetensors", folders=folders)


def test_a_weight_too_few_and_another_models_phrase_are_named(folders: Folders, engine: Engine):
    path = folders.models("gligen") / "tiny.safetensors"
    weights = tiny_models.load_weights(path)
    del weights["middle_block.1.transformer_blocks.0.fuser.norm1.bias"]
    layouts.write_weights(folders.models("gligen") / "less.safetensors", weights)
    gligen = load_gligen("less.safetensors", folders=folders)
    clip = load_checkpoint("SD 1.safetensors", folders=folders).CLIP
    prompt: Any = encode_text(TEXT, clip, models=engine.models, folders=folders)
    boxed = add_box(prompt, clip, gligen, "cat", models=engine.models, folders=folders)
    with pytest.raises(ModelError, match=r"1 are missing: fusers.1.norm1.bias"):
        gligen_layers(engine.models, gligen.weights, Precision("fp32", False, ""))
    other = load_checkpoint("loomlet", folders=folders).CLIP
    with pytest.raises(ValueError, match="takes 64; encode it with the CLIP of a model that the GLIGEN was made for"):
        add_box(boxed, other, gligen, "cat", models=engine.models, folders=folders)
