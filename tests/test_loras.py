"""LoRAs and their relatives: every kind against its formula, every naming, exact undoing, and the refusals."""

import logging
from typing import Any, NamedTuple, cast

import pytest
import torch
from torch import Tensor

from graph.builder import WorkflowBuilder
from graph.folders import Folders
from nodes.checkpoints import load_checkpoint
from nodes.codecs import CODEC
from nodes.engine import Engine, built_in, usual_store
from nodes.latents import empty_latent
from nodes.loras import load_lora, load_lora_for_model
from nodes.merging import merge_models
from nodes.model_errors import ModelError
from nodes.models import ModelPool
from nodes.sampling import ksampler
from nodes.text import encode_text
from nodes.values import Clip, Model
from tests import small_models, tiny_models
from tests.adapter_files import Tensors, change, lora, named, noise, write
from tests.small_models import SMALL

QUERY = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
CONV = "mid_block.resnets.0.conv1"
TEXT = "encoder.layers.1.self_attn.q_proj"


class World(NamedTuple):
    """A model of each family, and a pool that reads its networks."""

    folders: Folders
    pool: ModelPool

    def load(self, family: str = "SD 1") -> tuple[Model, Clip]:
        path = self.folders.models("checkpoints") / f"{family}.safetensors"
        if not path.exists():
            small_models.write_file(path, SMALL[family], self.folders.models("tokenizers") / "clip")
        return load_checkpoint(path.name, self.folders)[:2]

    def write(self, tensors: Tensors, name: str = "own.safetensors") -> str:
        write(self.folders.models("loras") / name, tensors)
        return name

    def unet(self, model: Model) -> dict[str, Tensor]:
        return self.pool.unet(model).state_dict()

    def text(self, clip: Clip) -> dict[str, Tensor]:
        found = self.pool.text_encoder(clip).state_dict()
        return {name.removeprefix("text_model."): tensor for name, tensor in found.items()}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("data")
    tiny_models.write_tokenizer(folder / "models" / "tokenizers" / "clip")
    return World(Folders.below(folder), ModelPool("fp32"))


def weight(world: World, name: str) -> Tensor:
    return world.unet(world.load()[0])[f"{name}.weight"]


def changed(world: World, tensors: Tensors, name: str, strength: float = 1.0) -> Tensor:
    """What a file makes of a weight of the U-Net."""
    model = load_lora_for_model(world.load()[0], world.write(tensors), strength, world.folders)
    return world.unet(model)[f"{name}.weight"]


@pytest.mark.parametrize("name", [QUERY, CONV])
def test_a_lora_adds_its_product_times_alpha_over_rank(world: World, name: str):
    before = weight(world, name)
    parts = lora(before)
    file = named(f"lora_unet_{name.replace('.', '_')}", {**parts, "alpha": torch.tensor(1.0)})
    expected = before + 0.7 * (1.0 / 2) * change(parts)
    torch.testing.assert_close(changed(world, file, name, 0.7), expected)


def test_the_middle_of_a_locon_is_a_convolution_between_the_others(world: World):
    before = weight(world, CONV)
    up, down = noise(len(before), 3, 1, 1, seed=1), noise(3, before.shape[1], 1, 1, seed=2)
    mid = noise(3, 3, 3, 3, seed=3)
    picture = noise(1, before.shape[1], 8, 8, seed=4)
    file = {"lora_up.weight": up, "lora_down.weight": down, "lora_mid.weight": mid}
    added = changed(world, named(f"lora_unet_{CONV.replace('.', '_')}", file), CONV) - before
    inner = torch.conv2d(torch.conv2d(torch.conv2d(picture, down), mid), up)
    torch.testing.assert_close(torch.conv2d(picture, added), inner, atol=1e-4, rtol=1e-4)


def test_a_loha_multiplies_two_products_number_by_number(world: World):
    before = weight(world, QUERY)
    rows, columns = before.shape
    a, b, c, d = noise(rows, 2, seed=1), noise(2, columns, seed=2), noise(rows, 2, seed=3), noise(2, columns, seed=4)
    parts = {"hada_w1_a": a, "hada_w1_b": b, "hada_w2_a": c, "hada_w2_b": d, "alpha": torch.tensor(4.0)}
    found = changed(world, named(f"lora_unet_{QUERY.replace('.', '_')}", parts), QUERY)
    torch.testing.assert_close(found, before + 2 * (a @ b) * (c @ d))


def test_a_loha_may_have_cores_of_kernels(world: World):
    before = weight(world, CONV)
    rows, columns = before.shape[:2]
    parts = {
        f"hada_{name}": noise(*shape, seed=seed)
        for seed, (name, shape) in enumerate(
            {"w1_a": (2, rows), "w1_b": (2, columns), "w2_a": (2, rows), "w2_b": (2, columns),
             "t1": (2, 2, 3, 3), "t2": (2, 2, 3, 3)}.items()
        )
    }  # fmt: skip
    found = changed(world, named(f"lora_unet_{CONV.replace('.', '_')}", parts), CONV)

    def factor(number: int) -> Tensor:
        a, b, core = (parts[f"hada_{name}"] for name in (f"w{number}_a", f"w{number}_b", f"t{number}"))
        return sum(
            a[i][:, None, None, None] * b[j][None, :, None, None] * core[i, j] for i in range(2) for j in range(2)
        )  # pyright: ignore[reportReturnType]  # sum() may begin with 0

    torch.testing.assert_close(found, before + factor(1) * factor(2))


@pytest.mark.parametrize("name", [QUERY, CONV])
def test_a_lokr_is_a_kronecker_product(world: World, name: str):
    before = weight(world, name)
    rows, columns, *kernel = before.shape
    first, a = noise(2, 4, seed=1), noise(rows // 2, 3, seed=2)
    b = noise(3, columns // 4 * torch.Size(kernel).numel(), seed=3)
    parts = {"lokr_w1": first, "lokr_w2_a": a, "lokr_w2_b": b, "alpha": torch.tensor(1.5)}
    if kernel:
        whole = (a @ b).reshape(rows // 2, columns // 4, *kernel)
        parts = {"lokr_w1": first, "lokr_w2": whole}
    found = changed(world, named(f"lora_unet_{name.replace('.', '_')}", parts), name)
    second = (a @ b).reshape(rows // 2, columns // 4, *kernel) * (1 if kernel else 1.5 / 3)
    added = torch.stack([torch.stack([first[i, j] * second for j in range(4)]) for i in range(2)])
    expected = added.transpose(1, 2).reshape(before.shape)
    torch.testing.assert_close(found, before + expected)


@pytest.mark.parametrize("axis", ["outputs", "inputs"])
def test_a_dora_has_a_length_of_its_own(world: World, axis: str):
    before = weight(world, QUERY)
    parts = lora(before)
    length = noise(len(before), 1, seed=5) if axis == "outputs" else noise(1, before.shape[1], seed=5)
    file = named(f"lora_unet_{QUERY.replace('.', '_')}", {**parts, "dora_scale": length})
    moved = before + change(parts)
    expected = length * moved / moved.square().sum(1 if axis == "outputs" else 0, keepdim=True).sqrt()
    torch.testing.assert_close(changed(world, file, QUERY), expected)
    torch.testing.assert_close(changed(world, file, QUERY, 0.5), before + 0.5 * (expected - before))


def test_differences_may_be_whole_and_change_biases_too(world: World):
    before = world.unet(world.load()[0])
    weight, bias = noise(*before[f"{CONV}.weight"].shape, seed=1), noise(*before[f"{CONV}.bias"].shape, seed=2)
    name = world.write(named("diffusion_model.middle_block.0.in_layers.2", {"diff": weight, "diff_b": bias}))
    after = world.unet(load_lora_for_model(world.load()[0], name, 0.5, world.folders))
    torch.testing.assert_close(after[f"{CONV}.weight"], before[f"{CONV}.weight"] + 0.5 * weight)
    torch.testing.assert_close(after[f"{CONV}.bias"], before[f"{CONV}.bias"] + 0.5 * bias)


def peft(parts: Tensors, end: str = "") -> Tensors:
    return {f"lora_B{end}.weight": parts["lora_up.weight"], f"lora_A{end}.weight": parts["lora_down.weight"]}


def of_diffusers(parts: Tensors, middle: str = "lora") -> Tensors:
    return {f"{middle}.up.weight": parts["lora_up.weight"], f"{middle}.down.weight": parts["lora_down.weight"]}


def test_every_naming_means_the_same(world: World):
    parts = lora(weight(world, QUERY))
    processor = QUERY.replace("attn1.", "attn1.processor.")
    named_so: list[Tensors] = [
        named(f"lora_unet_{QUERY.replace('.', '_')}", parts),
        named("lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q", parts),
        named(f"unet.{QUERY}", peft(parts)),
        named(f"base_model.model.{QUERY}", peft(parts)),
        named(f"base_model.model.{QUERY}", peft(parts, ".default")),
        named(f"unet.{QUERY}", of_diffusers(parts)),
        {f"unet.{processor}_{name}": part for name, part in of_diffusers(parts).items()},
        named("diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q", parts),
    ]
    expected = weight(world, QUERY) + change(parts)
    for file in named_so:
        torch.testing.assert_close(changed(world, file, QUERY), expected, msg=", ".join(file))


def test_every_naming_of_a_text_encoder_means_the_same(world: World):
    model, clip = world.load()
    before = world.text(clip)[f"{TEXT}.weight"]
    parts = lora(before)
    for file in (
        named(f"lora_te_text_model_{TEXT.replace('.', '_')}", parts),
        named(f"lora_te1_text_model_{TEXT.replace('.', '_')}", parts),
        named(f"text_encoder.text_model.{TEXT}", peft(parts)),
        named(f"text_encoder.text_model.{TEXT}", of_diffusers(parts, "lora_linear_layer")),
    ):
        changed = load_lora(model, clip, world.write(file), 1.0, 0.5, world.folders)
        assert model == changed.MODEL
        torch.testing.assert_close(world.text(changed.CLIP)[f"{TEXT}.weight"], before + 0.5 * change(parts))


def test_both_text_encoders_of_sdxl_have_their_own(world: World):
    model, clip = world.load("SDXL")
    before = [world.text(each)[f"{TEXT}.weight"] for each in clip.encoders]
    first, second = (lora(each, seed=number) for number, each in enumerate(before))
    file = {
        **named(f"lora_te1_text_model_{TEXT.replace('.', '_')}", first),
        **named(f"lora_te2_text_model_{TEXT.replace('.', '_')}", second),
    }
    changed = load_lora(model, clip, world.write(file), 1.0, 1.0, world.folders).CLIP
    (other,) = changed.further
    torch.testing.assert_close(world.text(changed)[f"{TEXT}.weight"], before[0] + change(first))
    torch.testing.assert_close(world.text(other)[f"{TEXT}.weight"], before[1] + change(second))


def test_several_are_added_one_after_the_other(world: World):
    before = weight(world, QUERY)
    one, other = lora(before, seed=1), lora(before, rank=4, seed=7)
    names = [
        world.write(named(f"unet.{QUERY}", parts), f"{len(parts)}{at}.safetensors")
        for at, parts in enumerate((one, other))
    ]
    model = world.load()[0]
    for name, strength in zip(names, (0.5, -2.0), strict=True):
        model = load_lora_for_model(model, name, strength, world.folders)
    expected = before + 0.5 * change(one) - 2.0 * change(other)
    torch.testing.assert_close(world.unet(model)[f"{QUERY}.weight"], expected)


def test_without_it_the_weights_are_what_they_were_to_the_last_bit(world: World):
    model, clip = world.load()
    name = world.write(named(f"unet.{QUERY}", lora(weight(world, QUERY))))
    before = {key: tensor.clone() for key, tensor in world.unet(model).items()}
    after = world.unet(load_lora_for_model(model, name, 1.0, world.folders))
    assert {key for key in before if not torch.equal(before[key], after[key])} == {f"{QUERY}.weight"}
    assert all(torch.equal(before[key], tensor) for key, tensor in world.unet(model).items())
    assert load_lora(model, clip, name, 0.0, 0.0, world.folders) == (model, clip)


def test_strength_and_order_are_part_of_the_identity(world: World):
    model = world.load()[0]
    before = weight(world, QUERY)
    a, b = (world.write(named(f"unet.{QUERY}", lora(before, seed=n)), f"{n}.safetensors") for n in (1, 2))

    def identity(*patches: tuple[str, float]) -> str:
        made = model
        for name, strength in patches:
            made = load_lora_for_model(made, name, strength, world.folders)
        return made.weights.identity

    found = [
        identity(),
        identity((a, 1.0)),
        identity((a, 0.5)),
        identity((a, 1.0), (b, 1.0)),
        identity((b, 1.0), (a, 1.0)),
    ]
    assert len(set(found)) == len(found)
    assert identity((a, 0.0), (b, 1.0)) == identity((b, 1.0))


def test_it_is_computed_in_float32_and_kept_in_the_networks_precision(world: World):
    before = weight(world, QUERY)
    parts = lora(before)
    name = world.write({key: part.half() for key, part in named(f"unet.{QUERY}", parts).items()})
    model = load_lora_for_model(world.load()[0], name, 0.3, world.folders)
    half = ModelPool("bf16").unet(model).state_dict()[f"{QUERY}.weight"]
    rounded = {key: part.half().float() for key, part in parts.items()}
    assert torch.equal(half, (before + 0.3 * change(rounded)).bfloat16())


def test_a_lora_for_another_family_is_refused_with_both_names(world: World):
    model, _ = world.load("SD 2")
    key = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    shape = world.unet(model)[f"{key}.weight"].shape
    file = world.write(named(f"unet.{key}", lora(torch.empty(shape[0], 768))), "portrait.safetensors")
    with pytest.raises(ModelError) as error:
        load_lora_for_model(model, file, 1.0, world.folders)
    assert "portrait.safetensors: an SD 1 LoRA, which does not fit the U-Net of 'SD 2.safetensors' (SD 2)" in str(
        error.value
    )
    assert f"for {key}.weight it has a change to {shape[0]} x 768 numbers" in str(error.value)


def test_a_lora_that_names_nothing_of_the_network_is_refused(world: World):
    model, clip = world.load()
    file = world.write(named("transformer.double_blocks.0.img_attn.qkv", lora(torch.empty(8, 8))))
    with pytest.raises(ModelError, match=r"it names nothing that is there, but transformer\.double_blocks"):
        load_lora(model, clip, file, 1.0, 1.0, world.folders)


def test_what_is_no_lora_or_a_pickle_is_refused(world: World):
    model = world.load()[0]
    write(world.folders.models("loras") / "word.safetensors", {"emb_params": torch.zeros(1, 768)})
    with pytest.raises(ModelError, match="it is no LoRA, but a SD 1 embedding"):
        load_lora_for_model(model, "word.safetensors", 1.0, world.folders)
    (world.folders.models("loras") / "old.pt").write_bytes(b"")
    with pytest.raises(ModelError, match="this is a pickle"):
        load_lora_for_model(model, "old.pt", 1.0, world.folders)
    with pytest.raises(ModelError, match="Did you mean 'word.safetensors'"):
        load_lora_for_model(model, "words.safetensors", 1.0, world.folders)


def test_what_fits_nothing_is_said_in_the_log(world: World, caplog: pytest.LogCaptureFixture):
    file = {**named(f"unet.{QUERY}", lora(weight(world, QUERY))), **named("unet.no.such", lora(torch.empty(4, 4)))}
    with caplog.at_level(logging.WARNING):
        changed(world, file, QUERY)
    assert "own.safetensors: 2 of 4 tensors fit nothing: unet.no.such.lora_down.weight" in caplog.text


def test_what_is_for_a_text_encoder_is_not_missed_by_the_model_alone(world: World, caplog: pytest.LogCaptureFixture):
    text = named(f"lora_te_text_model_{TEXT.replace('.', '_')}", lora(torch.empty(64, 64)))
    with caplog.at_level(logging.WARNING):
        changed(world, {**named(f"unet.{QUERY}", lora(weight(world, QUERY))), **text}, QUERY)
    assert not caplog.text


def test_what_fits_only_a_network_that_it_is_not_asked_for_changes_nothing(world: World):
    """As in workflows that leave the model alone by a strength of 0, whatever the file."""
    model, clip = world.load()
    name = world.write(named(f"unet.{QUERY}", lora(weight(world, QUERY))))
    assert load_lora(model, clip, name, 0.0, 1.0, world.folders) == (model, clip)


def test_a_picture_changes_with_a_lora_and_not_with_one_of_no_strength(world: World):
    model, _ = world.load()
    world.write(named(f"unet.{QUERY}", lora(world.unet(model)[f"{QUERY}.weight"])))
    engine = Engine(world.folders, catalogue=built_in(), precision="fp32", store=usual_store(world.folders))

    def latent(strength: float | None) -> Tensor:
        with WorkflowBuilder() as workflow:
            model, clip, _ = load_checkpoint(ckpt_name="SD 1.safetensors")
            if strength is not None:
                changed = load_lora(
                    model=model, clip=clip, lora_name="own.safetensors", strength_model=strength, strength_clip=0.0
                )
                model, clip = changed
            text = encode_text(text="the blue cat", clip=clip)
            sampled: Any = ksampler(
                model=model, seed=1, steps=2, cfg=1.0, sampler_name="euler", scheduler="normal", positive=text,
                negative=text, latent_image=empty_latent(width=64, height=64, batch_size=1),
            )  # fmt: skip
        output: Any = engine.run(workflow, targets=[sampled.step]).checked().outputs[sampled.step][0]
        return output.samples

    plain, strong = latent(None), latent(1.0)
    assert not torch.equal(plain, strong) and strong.isfinite().all()
    assert torch.equal(latent(0.0), plain) and torch.equal(latent(1.0), strong)


def test_a_reference_with_patches_is_kept_on_disk_as_it_is(world: World):
    model, _ = world.load()
    name = world.write(named(f"unet.{QUERY}", lora(weight(world, QUERY))))
    patched = merge_models(load_lora_for_model(model, name, 0.5, world.folders), model, 0.5)
    encoded = CODEC.encode(patched)
    assert CODEC.decode(encoded.tree, encoded.blocks) == patched


@pytest.mark.parametrize("name", [QUERY, CONV])
def test_a_glora_adds_products_with_the_weight_and_without(world: World, name: str):
    before = weight(world, name)
    rows, columns, *kernel = before.shape
    a1, a2, b1 = noise(columns, 2, seed=1), noise(2, columns, seed=2), noise(rows, 2, seed=3)
    b2 = noise(2, columns, *kernel, seed=4)
    ones = [1] * len(kernel)
    file = {"a1": a1.reshape(columns, 2, *ones), "a2": a2.reshape(2, columns, *ones), "b1": b1.reshape(rows, 2, *ones)}
    parts = {f"{each}.weight": tensor for each, tensor in {**file, "b2": b2}.items()} | {"alpha": torch.tensor(3.0)}
    found = changed(world, named(f"lora_unet_{name.replace('.', '_')}", parts), name, 0.5)
    added = torch.einsum("oi...,ik,kj->oj...", before, a1, a2) + torch.einsum("or,ri...->oi...", b1, b2)
    torch.testing.assert_close(found, before + 0.5 * (3.0 / 2) * added, rtol=1e-4, atol=1e-4)


def blocks_of(*blocks: Tensor) -> Tensor:
    """A matrix of these along its diagonal."""
    return cast(Any, torch).block_diag(*blocks)


def cayley(block: Tensor) -> Tensor:
    skew, one = block - block.T, torch.eye(len(block))
    return (one + skew) @ torch.inverse(one - skew)


@pytest.mark.parametrize("name", [QUERY, CONV])
def test_an_oft_turns_stretches_of_outputs(world: World, name: str):
    before = weight(world, name)
    blocks, length = noise(len(before) // 4, 4, 4, seed=1), 1 + noise(len(before), seed=2)
    ones = [1] * (before.ndim - 1)
    parts = {"oft_blocks": blocks, "alpha": torch.tensor(0.0)}
    file = f"lora_unet_{name.replace('.', '_')}"
    expected = blocks_of(*(cayley(block).T for block in blocks)) @ before.flatten(1)
    found = changed(world, named(file, parts), name)
    torch.testing.assert_close(found, expected.reshape(before.shape), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.square().sum(), before.square().sum())
    longer = changed(world, named(file, {**parts, "rescale": length.reshape(-1, *ones)}), name)
    torch.testing.assert_close(longer, found * length.reshape(-1, *ones), rtol=1e-4, atol=1e-4)
    half = changed(world, named(file, parts), name, 0.5)
    torch.testing.assert_close(half, before + 0.5 * (found - before), rtol=1e-4, atol=1e-4)


def test_alpha_bounds_how_far_an_oft_turns(world: World):
    before = weight(world, QUERY)
    blocks = noise(len(before) // 4, 4, 4, seed=1)
    skew = blocks - blocks.mT
    bound = 0.001 * len(before)
    smaller = skew * (bound / skew.square().sum().sqrt()) / 2  # a block of which twice itself is left
    files = [
        named(f"unet.{QUERY}", {"oft_blocks": each, "alpha": torch.tensor(alpha)})
        for each, alpha in ((blocks, 0.001), (smaller, 0.0))
    ]
    ours, theirs = (changed(world, file, QUERY) for file in files)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_boft_turns_ever_wider_spread_outputs(world: World):
    """Factor m of blocks of two pairs turns the outputs 2^m apart; written down as matrices."""
    before = weight(world, QUERY)
    rows = len(before)
    blocks = noise(3, rows // 4, 4, 4, seed=1)
    expected = before.flatten(1)
    for level in range(3):
        stride = 2 * 2**level
        order = [g * stride + k + start for start in range(0, rows, 2 * stride) for k in range(stride) for g in (0, 1)]
        turn = torch.eye(rows)[order]
        expected = turn.T @ blocks_of(*(cayley(block) for block in blocks[level])) @ turn @ expected
    found = changed(world, named(f"unet.{QUERY}", {"oft_blocks": blocks}), QUERY)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_blocks_for_other_outputs_are_refused(world: World):
    file = world.write(named(f"unet.{QUERY}", {"oft_blocks": noise(5, 4, 4, seed=1)}))
    with pytest.raises(ModelError, match=r"it has a change to 20 x any numbers, not 64 x 64"):
        load_lora_for_model(world.load()[0], file, 1.0, world.folders)
