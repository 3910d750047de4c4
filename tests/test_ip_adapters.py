"""IP-Adapters: pictures beside the text, as diffusers' pipelines show them to a network."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from graph.builder import WorkflowBuilder
from graph.catalogue import Catalogue
from graph.folders import Folders
from graph.node import node
from nodes import pickles
from nodes.adapter_names import canonical_shapes
from nodes.added_inputs import Told
from nodes.checkpoints import load_checkpoint
from nodes.clip_vision import load_clip_vision
from nodes.engine import Engine, built_in, usual_store
from nodes.identification import Identified, identify
from nodes.ip_adapter_layout import cross_attentions
from nodes.ip_adapters import apply_ip_adapter, load_ip_adapter
from nodes.latents import empty_latent
from nodes.maths.clip_pictures import clip_pictures
from nodes.model_errors import ModelError
from nodes.models import ModelPool
from nodes.network_patches import PictureAttention
from nodes.patched_network import patched
from nodes.picture_attention import grid
from nodes.sampling import ksampler, ksampler_advanced
from nodes.text import encode_text
from nodes.values import Image, Latent, Mask, Model
from tests import original_layouts as layouts
from tests import picture_encoders, small_models, tiny_models
from tests.ip_adapter_files import as_diffusers_takes_them, write_ip_adapter
from tests.small_models import SMALL
from tests.test_families import ASKED, CFG, SEED, SIDE, STEPS, TEXT, near, start
from tests.test_families import AWAY as AWAY_TEXT
from tests.test_families import pipeline as family_pipeline
from tests.test_identification import entries

pytestmark = pytest.mark.usefixtures("packed_as_large_ones")

ENCODER = picture_encoders.tiny()
DESIGNS = ("base", "plus", "full face")
FAMILIES = ("SD 1", "SDXL")


def pixels(count: int) -> Tensor:
    return torch.rand(count, 32, 32, 3, generator=torch.Generator().manual_seed(7))


@node("Pictures")
def pictures(count: int = 1) -> Image:
    """Pictures of noise."""
    return Image(pixels(count))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    found = Folders.below(tmp_path_factory.mktemp("data"))
    tokenizer = found.models("tokenizers") / "clip"
    tiny_models.write_tokenizer(tokenizer)
    for family in FAMILIES:
        checkpoint = found.models("checkpoints") / f"{family}.safetensors"
        weights = small_models.write_file(checkpoint, SMALL[family], tokenizer)
        small_models.write_folder(found.data / family, SMALL[family], weights)
        unet = cast(Any, UNet2DConditionModel).from_pretrained(found.data / family / "unet")
        for design in DESIGNS:
            write_ip_adapter(found.models("ipadapter") / f"{family} {design}.safetensors", unet, design)
    picture_encoders.write_file(found.models("clip_vision") / "tiny.safetensors", ENCODER)
    return found


@pytest.fixture(scope="module")
def engine(folders: Folders) -> Engine:
    return Engine(folders, catalogue=built_in() | Catalogue([pictures, half]), precision="fp32")


def sampling(
    family: str, count: int = 1, adapters: tuple[dict[str, Any], ...] = ({},), parts: bool = False, design: str = "base"
) -> tuple[WorkflowBuilder, str]:
    """A workflow that shows a model some pictures once for each adapter; sampled whole, or in two parts."""
    with WorkflowBuilder() as workflow:
        model, clip, _ = load_checkpoint(ckpt_name=f"{family}.safetensors")
        for settings in adapters:
            adapter = load_ip_adapter(ipadapter_file=f"{family} {design}.safetensors")
            encoder = load_clip_vision(clip_name="tiny.safetensors")
            shown: Any = pictures(count)
            given = {name: value() if name == "attn_mask" else value for name, value in settings.items()}
            model = apply_ip_adapter(model=model, ipadapter=adapter, image=shown, clip_vision=encoder, **given)
        asked: Any = {
            "model": model, "steps": STEPS, "cfg": CFG, "sampler_name": "euler", "scheduler": "normal",
            "positive": encode_text(text=TEXT, clip=clip), "negative": encode_text(text=AWAY_TEXT, clip=clip),
        }  # fmt: skip
        latent: Any = empty_latent(SIDE, SIDE, 2)
        if parts:
            latent = ksampler_advanced(
                **asked, noise_seed=SEED, latent_image=latent, end_at_step=1, return_with_leftover_noise="enable"
            )
            asked |= {"noise_seed": SEED, "add_noise": "disable", "start_at_step": 1}
            latent = ksampler_advanced(**asked, latent_image=latent)
        else:
            latent = ksampler(**asked, seed=SEED, latent_image=latent)
    return workflow, latent.step


@node("Half")
def half() -> Mask:
    """The left half, fading out."""
    return Mask(half_values())


def half_values() -> Tensor:
    return torch.linspace(1.5, -0.5, SIDE).clamp(0, 1).expand(1, SIDE, -1).contiguous()


def sampled(engine: Engine, *asked: Any, **named: Any) -> Tensor:
    workflow, step = sampling(*asked, **named)
    return cast(Latent, engine.run(workflow, targets=[step]).checked().outputs[step][0]).samples


def pipeline(folders: Folders, family: str, design: str, scale: float, count: int, **more: Any) -> Tensor:
    made = family_pipeline(folders.data / family)
    made.register_modules(image_encoder=ENCODER)
    weights = tiny_models.load_weights(folders.models("ipadapter") / f"{family} {design}.safetensors")
    made.load_ip_adapter(as_diffusers_takes_them(weights), subfolder="", weight_name="")
    made.set_ip_adapter_scale(scale)
    shown = clip_pictures(pixels(count), 32, crop=True)
    return made(**ASKED, **more, height=SIDE, width=SIDE, latents=start(), ip_adapter_image=[shown]).images


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(
    ("family", "design", "scale", "count"),
    [
        ("SD 1", "base", 1.0, 1),
        ("SD 1", "base", 0.5, 2),
        ("SD 1", "plus", 1.0, 1),
        ("SD 1", "plus", 0.5, 2),
        ("SD 1", "full face", 0.7, 1),
        ("SDXL", "base", 0.5, 1),
        ("SDXL", "plus", 1.0, 1),
    ],
)
def test_the_latents_are_those_of_diffusers_pipeline(
    family: str, design: str, scale: float, count: int, folders: Folders, engine: Engine
):
    ours = sampled(engine, family, count, ({"weight": scale},), design=design)
    near(ours * SMALL[family].scale, pipeline(folders, family, design, scale, count))
    assert not torch.allclose(ours, sampled(engine, family, adapters=()), atol=0.01)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_mask_says_where_it_counts_as_in_diffusers(folders: Folders, engine: Engine):
    ours = sampled(engine, "SD 1", adapters=({"weight": 0.8, "attn_mask": half},))
    masks = {"ip_adapter_masks": [half_values()[None]]}
    near(ours * SMALL["SD 1"].scale, pipeline(folders, "SD 1", "base", 0.8, 1, cross_attention_kwargs=masks))
    assert not torch.equal(ours, sampled(engine, "SD 1", adapters=({"weight": 0.8},)))


def test_the_places_of_a_layer_lie_as_those_of_the_latent():
    latents = ((64, 8, 8), (20, 9, 7), (24, 4, 6), (6, 2, 3))
    assert [grid(*each) for each in latents] == [(8, 8), (5, 4), (4, 6), (2, 3)]


def test_a_weight_of_0_is_the_model_itself(engine: Engine):
    assert torch.equal(sampled(engine, "SD 1", adapters=({"weight": 0.0},)), sampled(engine, "SD 1", adapters=()))


def test_several_adapters_add_up(engine: Engine):
    twice, once = (sampled(engine, "SD 1", adapters=each) for each in (({"weight": 0.5},) * 2, ({"weight": 1.0},)))
    torch.testing.assert_close(twice, once, rtol=1e-3, atol=1e-3)


def test_an_average_of_pictures_is_one_picture(engine: Engine):
    average = {"combine_embeds": "average"}
    one, two = (sampled(engine, "SD 1", count, (average,), design="plus") for count in (1, 2))
    assert torch.equal(one, sampled(engine, "SD 1", 1, design="plus"))
    assert not torch.equal(two, sampled(engine, "SD 1", 2, design="plus")) and not torch.equal(one, two)


def test_outside_its_span_the_model_is_asked_without_it(engine: Engine):
    plain, whole = sampled(engine, "SD 1", adapters=()), sampled(engine, "SD 1")
    assert torch.equal(sampled(engine, "SD 1", adapters=({"start_at": 0.0, "end_at": 1.0},)), whole)
    first, last = ({"end_at": 0.5}, {"start_at": 0.5})
    halves = [sampled(engine, "SD 1", adapters=(each,)) for each in (first, last)]
    assert not any(torch.equal(each, other) for each in halves for other in (plain, whole))
    # The spans are apart on this schedule: together they are the whole.
    assert torch.equal(sampled(engine, "SD 1", adapters=(first, last)), whole)


def test_sampling_whole_and_in_parts_is_the_same(engine: Engine):
    settings = ({"weight": 0.8, "start_at": 0.2},)
    whole, parts = (sampled(engine, "SDXL", adapters=settings, parts=each) for each in (False, True))
    assert torch.equal(whole, parts)


def test_pictures_can_be_given_for_the_negative_side(folders: Folders):
    model = load_checkpoint("SD 1.safetensors", folders=folders).MODEL
    adapter = load_ip_adapter("SD 1 plus.safetensors", folders=folders)
    encoder, shown = load_clip_vision("tiny.safetensors", folders=folders), Image(pixels(1))

    def negative(**settings: Any) -> Tensor:
        found = apply_ip_adapter(model, adapter, shown, encoder, **settings, models=ModelPool("fp32", "cpu"))
        [patch] = cast("tuple[PictureAttention]", found.network_patches)
        assert torch.equal(patch.pictures.negative, patch.pictures.tokens) is bool(settings)
        return patch.pictures.negative

    assert not torch.equal(negative(), negative(image_negative=shown))


def test_any_numbers_of_pictures_may_stand_on_either_side(folders: Folders, engine: Engine):
    model = load_checkpoint("SD 1.safetensors", folders=folders).MODEL
    adapter = load_ip_adapter("SD 1 plus.safetensors", folders=folders)
    encoder = load_clip_vision("tiny.safetensors", folders=folders)

    def predicted(shown: int, away: int, times: int = 1) -> Tensor:
        image, other = (Image(pixels(count).repeat(times, 1, 1, 1)) for count in (shown, away))
        found = apply_ip_adapter(model, adapter, image, encoder, image_negative=other, models=engine.models)
        told = Told(negative=torch.tensor([False, True]))
        x, text = torch.ones(2, 4, 8, 8), torch.ones(2, 3, 64)
        return engine.models.denoise_network(found)(x, torch.tensor([500.0, 500.0]), text, told)

    torch.testing.assert_close(predicted(2, 3), predicted(2, 3, times=2), rtol=1e-4, atol=1e-4)
    assert not torch.equal(predicted(2, 3)[0], predicted(2, 3)[1])


def test_keys_change_exactly_when_the_picture_would(engine: Engine):
    def key(count: int = 1, design: str = "base", **settings: Any) -> Any:
        workflow, step = sampling("SD 1", count, (settings,), design=design)
        return engine.keys(engine.resolve(workflow, targets=[step]))[step]

    others = [key(2), key(design="plus"), key(weight=0.5), key(start_at=0.5), key(end_at=0.5)]
    assert len({key(), *others}) == 6 and key() == key(weight=1.0)


def test_a_model_with_pictures_is_kept_on_disk(folders: Folders, tmp_path: Path):
    there = Folders(data=folders.data, output=tmp_path / "output")
    with WorkflowBuilder() as workflow:
        model = load_checkpoint(ckpt_name="SD 1.safetensors")[0]
        adapter = load_ip_adapter(ipadapter_file="SD 1 base.safetensors")
        encoder = load_clip_vision(clip_name="tiny.safetensors")
        shown: Any = apply_ip_adapter(model=model, ipadapter=adapter, image=pictures(), clip_vision=encoder)
    catalogue = built_in() | Catalogue([pictures])
    engines = (Engine(there, catalogue=catalogue, precision="fp32", store=usual_store(there)) for _ in range(2))
    runs = [engine.run(workflow, targets=[shown.step]).checked() for engine in engines]
    first, second = (cast(Model, run.outputs[shown.step][0]) for run in runs)
    assert first == second and hash(first.network_patches) == hash(second.network_patches)


def test_an_adapter_for_another_family_is_refused_with_both_names(folders: Folders):
    model = load_checkpoint("SDXL.safetensors", folders=folders).MODEL
    adapter = load_ip_adapter("SD 1 base.safetensors", folders=folders)
    encoder = load_clip_vision("tiny.safetensors", folders=folders)
    with pytest.raises(ModelError, match=r"does not fit the U-Net of 'SDXL.safetensors' \(SDXL\): its keys are \[32"):
        apply_ip_adapter(model, adapter, Image(pixels(1)), encoder, models=ModelPool("fp32", "cpu"))


def test_an_encoder_that_the_adapter_was_not_trained_with_is_refused(folders: Folders):
    picture_encoders.write_file(
        folders.models("clip_vision") / "other.safetensors", picture_encoders.tiny(space=picture_encoders.SPACE + 1)
    )
    model = load_checkpoint("SD 1.safetensors", folders=folders).MODEL
    adapter = load_ip_adapter("SD 1 base.safetensors", folders=folders)
    encoder = load_clip_vision("other.safetensors", folders=folders)
    with pytest.raises(ValueError, match=r"\(base\) takes pictures encoded into 24 numbers, but 'other.*' makes 25"):
        apply_ip_adapter(model, adapter, Image(pixels(1)), encoder, models=ModelPool("fp32", "cpu"))


def test_a_pickle_as_they_are_published_gives_the_same_where_it_is_allowed(folders: Folders, engine: Engine):
    root = folders.models("ipadapter")
    nested = as_diffusers_takes_them(tiny_models.load_weights(root / "SD 1 plus.safetensors"))
    cast(Any, torch).save(nested, root / "SD 1 plus.bin")
    with pytest.raises(ModelError, match="pickle"):
        load_ip_adapter("SD 1 plus.bin", folders=folders)
    pickles.allow()
    try:
        model = load_checkpoint("SD 1.safetensors", folders=folders).MODEL
        encoder = load_clip_vision("tiny.safetensors", folders=folders)
        digests = set[str]()
        for end in (".bin", ".safetensors"):
            adapter = load_ip_adapter(f"SD 1 plus{end}", folders=folders)
            shown = apply_ip_adapter(model, adapter, Image(pixels(1)), encoder, models=engine.models)
            [patch] = cast("tuple[PictureAttention]", shown.network_patches)
            digests.add(patch.pictures.digest)
            patched(engine.models.unet(shown), shown.network_patches)
        assert len(digests) == 1
    finally:
        pickles.allow(False)


def without(name: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda weights: {each: tensor for each, tensor in weights.items() if each != name}


BAD: dict[str, tuple[Callable[[dict[str, Tensor]], dict[str, Tensor]], str]] = {
    "no projection": (without("image_proj.proj.weight"), r"not an IP-Adapter: there is no image_proj.proj.weight"),
    "no norm": (without("image_proj.norm.bias"), "1 are missing: norm.bias"),
    "a layer less": (without("ip_adapter.3.to_k_ip.weight"), "it is for 1 layers, and the model has"),
    "no values": (without("ip_adapter.3.to_v_ip.weight"), "there is no 3.to_v_ip.weight"),
    "faces": (lambda weights: weights | {"ip_adapter.0.to_k_lora.down.weight": torch.zeros(1, 1)}, "a FaceID adapter"),
    "another kind": (
        lambda _: layouts.random_weights(layouts.clip(layouts.Text(64, 1, 64, 9))),
        "it is a text encoder",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_is_no_adapter_or_not_whole_is_refused_with_the_reason(case: str, folders: Folders):
    change, message = BAD[case]
    weights = tiny_models.load_weights(folders.models("ipadapter") / "SD 1 base.safetensors")
    layouts.write_weights(folders.models("ipadapter") / f"{case}.safetensors", change(weights))
    model = load_checkpoint("SD 1.safetensors", folders=folders).MODEL
    encoder = load_clip_vision("tiny.safetensors", folders=folders)
    with pytest.raises(ModelError, match=message):
        adapter = load_ip_adapter(f"{case}.safetensors", folders=folders)
        apply_ip_adapter(model, adapter, Image(pixels(1)), encoder, models=ModelPool("fp32", "cpu"))


def test_published_files_are_told_by_their_shapes():
    base = layouts.below("image_proj.", {"proj.weight": (3072, 1024), "norm.weight": (768,)})
    keys = {f"ip_adapter.{2 * at + 1}.to_{kind}_ip.weight": (320, 768) for at in range(16) for kind in "kv"}
    found = identify(entries(base | keys))
    assert isinstance(found, Identified) and str(found) == "SD 1 IP-Adapter (base)"


def test_attention_is_counted_as_diffusers_counts_it(folders: Folders):
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    for family in FAMILIES:
        unet = cast(Any, UNet2DConditionModel).from_pretrained(folders.data / family / "unet")
        wanted = [name.removesuffix(".processor") for name in unet.attn_processors if "attn2" in name]
        model = load_checkpoint(f"{family}.safetensors", folders=folders).MODEL
        assert cross_attentions(canonical_shapes(model.weights, "U-Net")) == wanted
