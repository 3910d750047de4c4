from dataclasses import replace
from pathlib import Path

import pytest
import torch

from graph.builder import WorkflowBuilder
from graph.catalogue import Catalogue
from graph.node import Many, node
from nodes import batches, lists
from nodes.values import Image, Latent
from tests.running import Bench, any_image, any_latent


@node("Sizes")
def sizes() -> Many[Image]:
    """Two pictures, and one of another size."""
    return [any_image(width=8, batch=2), any_image(width=16, batch=1), any_image(width=16, batch=2, seed=3)]


@node("Masked")
def masked() -> Many[Latent]:
    """A latent with a mask between two without, one of which knows its place in a larger batch."""
    mask = torch.zeros(1, 1, 64, 64)
    plain = any_latent(batch=2)
    return [replace(plain, batch_index=None), Latent(torch.ones(2, 4, 8, 8), mask), any_latent(batch=1, seed=1)]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bench = Bench.below(tmp_path, batches, lists)
    return replace(bench, catalogue=bench.catalogue | Catalogue((sizes, masked)))


def images_of(bench: Bench, workflow: WorkflowBuilder) -> list[Image]:
    return list(bench.last(workflow).values)


def test_a_batch_becomes_a_list_of_its_pictures_and_a_batch_again(bench: Bench):
    with WorkflowBuilder() as workflow:
        batches.image_batch_to_list(image=any_image(batch=3))
    pictures = images_of(bench, workflow)
    assert [picture.pixels.shape[0] for picture in pictures] == [1, 1, 1]
    assert torch.equal(batches.image_list_to_batch(pictures).pixels, any_image(batch=3).pixels)


def test_pictures_of_a_list_are_resized_to_the_first(bench: Bench):
    with WorkflowBuilder() as workflow:
        batches.image_list_to_batch(images=sizes())
    assert bench.last(workflow).pixels.shape == (5, 8, 8, 3)


def test_an_empty_list_is_no_batch():
    with pytest.raises(ValueError, match="there are no pictures in the list"):
        batches.image_list_to_batch([])


@pytest.mark.parametrize(("batch_size", "expected"), [(1, [1] * 5), (2, [2, 2, 1]), (4096, [2, 3])])
def test_pictures_are_batched_anew_as_far_as_they_are_of_one_size(bench: Bench, batch_size: int, expected: list[int]):
    with WorkflowBuilder() as workflow:
        batches.rebatch_images(images=sizes(), batch_size=batch_size)
    pictures = images_of(bench, workflow)
    assert [picture.pixels.shape[0] for picture in pictures] == expected
    assert torch.equal(pictures[-1].pixels[-1], any_image(width=16, batch=2, seed=3).pixels[-1])


@pytest.mark.parametrize(("index", "length", "expected"), [(0, 1, [0]), (1, 2, [1, 2]), (2, 9, [2]), (9, 1, [2])])
def test_some_pictures_are_taken_from_a_batch(index: int, length: int, expected: list[int]):
    image = any_image(batch=3)
    taken = batches.image_from_batch(image, index, length)
    assert torch.equal(taken.pixels, image.pixels[expected])


def test_latents_taken_from_a_batch_know_where_they_were():
    taken = batches.latent_from_batch(Latent(torch.arange(4.0).view(4, 1, 1, 1)), batch_index=1, length=2)
    assert torch.equal(taken.samples.flatten(), torch.tensor([1.0, 2.0])) and taken.batch_index == (1, 2)
    assert batches.latent_from_batch(taken, batch_index=1).batch_index == (2,)
    assert batches.latent_from_batch(taken, batch_index=7).batch_index == (2,)


def test_latents_taken_from_a_batch_keep_their_masks():
    masks = torch.arange(2.0).view(2, 1, 1, 1)
    taken = batches.latent_from_batch(Latent(torch.zeros(4, 4, 8, 8), masks), batch_index=1, length=3)
    assert taken.noise_mask is not None
    assert torch.equal(taken.noise_mask.flatten(), torch.tensor([1.0, 0.0, 1.0]))
    one = batches.latent_from_batch(Latent(torch.zeros(4, 4, 8, 8), masks[:1]), batch_index=3)
    assert one.noise_mask is not None and one.noise_mask.shape == (1, 1, 1, 1)


def test_rebatched_latents_know_where_they_were_and_what_is_to_be_changed(bench: Bench):
    with WorkflowBuilder() as workflow:
        batches.rebatch_latents(latents=masked(), batch_size=3)
    first, second = bench.last(workflow).values
    assert (first.batch_index, second.batch_index) == ((0, 1, 2), (3, 10))
    assert first.noise_mask.mean(dim=(1, 2, 3)).tolist() == [1.0, 1.0, 0.0]
    assert second.noise_mask.mean(dim=(1, 2, 3)).tolist() == [0.0, 1.0]


def test_masks_of_several_sizes_become_as_large_as_the_largest():
    latents = [Latent(torch.zeros(1, 4, 8, 8), torch.zeros(1, 1, side, side)) for side in (4, 64)]
    (batch,) = batches.rebatch_latents(latents, batch_size=2)
    assert batch.noise_mask is not None and batch.noise_mask.shape == (2, 1, 64, 64)


def test_latents_without_masks_get_none():
    (batch,) = batches.rebatch_latents([any_latent(batch=2)], batch_size=2)
    assert (batch.noise_mask, batch.batch_index) == (None, (10, 11))


def test_a_part_of_a_batch_does_not_keep_the_rest_alive():
    image = any_image(batch=4)
    taken = [batches.image_from_batch(image).pixels, *(each.pixels for each in batches.image_batch_to_list(image))]
    latent = any_latent(batch=4)
    taken += [batches.latent_from_batch(latent).samples, batches.rebatch_latents([latent])[0].samples]
    assert all(part.untyped_storage().nbytes() == part.nbytes for part in taken)


def test_what_is_made_for_each_picture_is_put_together_again(bench: Bench):
    with WorkflowBuilder() as workflow:
        pictures = batches.image_batch_to_list(image=any_image(batch=4))
        batches.image_list_to_batch(images=lists.list_slice(items=pictures, start=2))
    assert torch.equal(bench.last(workflow).pixels, any_image(batch=4).pixels[2:])
