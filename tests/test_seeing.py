"""What networks see: similarity, labels, boxes, masks and captions, against transformers on the same weights."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
import transformers
from torch import Tensor

from nodes.masks import invert_mask
from nodes.values import Image, Mask
from nodes.vision.boxes import Box, Boxes, boxes_to_mask, detect, draw_boxes, list_boxes, pick_boxes
from nodes.vision.captions import caption
from nodes.vision.classification import classify
from nodes.vision.models import load_vision_model
from nodes.vision.seeing import pillow
from nodes.vision.segments import Segments, list_segments, segment, segments_to_mask
from nodes.vision.similarity import classify_zero_shot, rank_by_prompt, similarity
from tests import tiny_vision
from tests.drawings import CAPTIONS, drawings
from tests.running import Bench, any_image
from tests.seeing import given, has, refused, vision_bench

lib = cast(Any, transformers)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return vision_bench(tmp_path)


def folder(bench: Bench) -> Path:
    return bench.folders.models("vision") / "tiny"


def pictures(batch: int = 1) -> list[Any]:
    """What `any_image(40, 30, batch)` gives, as pillow has it."""
    return pillow(torch.rand(batch, 30, 40, 3, generator=torch.Generator().manual_seed(0)))


def processor(bench: Bench) -> Any:
    return lib.AutoImageProcessor.from_pretrained(folder(bench), backend="pil")


def pipeline(bench: Bench, task: str, module: Any, **more: Any) -> Any:
    return lib.pipeline(task, model=module, image_processor=processor(bench), device="cpu", **more)


def test_similarity_is_the_cosine_of_clip(bench: Bench):
    module: Any = has(bench, tiny_vision.write_clip)
    scores = given(bench, lambda: similarity(load_vision_model("tiny"), any_image(40, 30, 2), "the blue cat"))
    words = lib.AutoTokenizer.from_pretrained(folder(bench))(["the blue cat"], return_tensors="pt")
    seen = processor(bench)(images=pictures(2), return_tensors="pt")
    with torch.no_grad():
        output = module(**words, **seen)
    assert scores == pytest.approx((output.logits_per_image[:, 0] / module.logit_scale.exp()).tolist(), abs=1e-5)
    with torch.no_grad():
        shares = given(bench, lambda: classify_zero_shot(load_vision_model("tiny"), any_image(40, 30), "cat\nblue dog"))
        words = lib.AutoTokenizer.from_pretrained(folder(bench))(["cat", "blue dog"], return_tensors="pt", padding=True)
        expected = module(**words, **processor(bench)(images=pictures(), return_tensors="pt")).logits_per_image
    assert shares[1] == pytest.approx(expected.softmax(1)[0].tolist(), abs=1e-5)


def test_the_embedded_model_finds_the_picture_for_each_caption(bench: Bench):
    for at, words in enumerate(CAPTIONS):
        ranked = given(
            bench, lambda words=words: rank_by_prompt(load_vision_model("loomlet"), drawings(), words, best=2)
        )
        assert ranked[2][0] == at and len(ranked[2]) == 2
        assert ranked[1][0] > 0.9 and ranked[1][1] < 0.7
        assert torch.equal(ranked[0].pixels[0], drawings.function().pixels[at])


def test_the_embedded_model_names_its_digits_and_objects(bench: Bench):
    digit = given(bench, lambda: classify(load_vision_model("loomlet-digit"), drawings()))
    thing = given(bench, lambda: classify(load_vision_model("loomlet-object"), drawings()))
    assert digit[0] == ["none", "none", "three"] and thing[0] == ["house", "duck", "none"]
    assert len(digit[1]) == 33 and digit[2].splitlines()[2].startswith("three ")


def test_classification_is_that_of_the_pipeline(bench: Bench):
    module = has(bench, tiny_vision.write_classifier)
    labels, scores, _ = given(bench, lambda: classify(load_vision_model("tiny"), any_image(40, 30, 2)))
    for at, found in enumerate(pipeline(bench, "image-classification", module)(pictures(2))):
        assert labels[at] == found[0]["label"]
        by_label = dict(zip(tiny_vision.LABELS.values(), scores[3 * at : 3 * at + 3], strict=True))
        assert by_label == pytest.approx({each["label"]: each["score"] for each in found}, abs=1e-5)


def test_detection_is_that_of_the_pipeline(bench: Bench):
    module = has(bench, tiny_vision.write_detector)
    boxes: Boxes = given(bench, lambda: detect(load_vision_model("tiny"), any_image(40, 30, 2), threshold=0.01))
    for at, found in enumerate(pipeline(bench, "object-detection", module)(pictures(2), threshold=0.01)):
        mine = [box for box in boxes.found if box.picture == at]
        assert [box.label for box in mine] == [each["label"] for each in found] and mine
        assert [box.score for box in mine] == pytest.approx([each["score"] for each in found], abs=1e-5)
        for box, each in zip(mine, found, strict=True):
            edges = [min(max(each["box"][name], 0), side) for name, side in (("xmin", 40), ("ymax", 30))]
            assert [box.left, box.bottom] == pytest.approx(edges, abs=1)  # the pipeline cuts to whole pixels


def test_things_named_in_words_are_detected_as_owlvit_does(bench: Bench):
    module: Any = has(bench, tiny_vision.write_open_detector)
    found: Boxes = given(
        bench, lambda: detect(load_vision_model("tiny"), any_image(40, 30), threshold=0.0, labels="cat\nthe dog")
    )
    words = lib.AutoTokenizer.from_pretrained(folder(bench))(
        ["cat", "the dog"], padding="max_length", max_length=77, return_tensors="pt"
    )
    with torch.no_grad():
        output = module(**words, **processor(bench)(images=pictures(), return_tensors="pt"))
    best = output.logits[0].sigmoid().max(-1)
    assert [box.score for box in found.found] == pytest.approx(sorted(best.values.tolist(), reverse=True), abs=1e-5)
    at = int(best.values.argmax())
    assert found.found[0].label == ["cat", "the dog"][int(best.indices[at])]
    x, y, width, height = output.pred_boxes[0, at].tolist()
    edges = (40 * (x - width / 2), 30 * (y - height / 2), 40 * (x + width / 2), 30 * (y + height / 2))
    box = found.found[0]
    limits = (40, 30, 40, 30)
    inside = [min(max(edge, 0), most) for edge, most in zip(edges, limits, strict=True)]
    assert (box.left, box.top, box.right, box.bottom) == pytest.approx(inside, abs=1e-3)
    assert "the list of labels is empty" in refused(bench, lambda: detect(load_vision_model("tiny"), any_image(40, 30)))


DOG, CAT, FAR = Box("dog", 0.9, 2, 1, 6, 4), Box("cat", 0.8, 0, 0, 3, 3), Box("dog", 0.4, 5, 5, 8, 8)
OTHER = Box("dog", 0.7, 0, 0, 1, 1, picture=1)
FOUND = Boxes((DOG, CAT, FAR, OTHER), width=8, height=8, pictures=2)


def test_boxes_are_picked_by_label_score_and_number():
    assert [box.score for box in pick_boxes(FOUND, "dog", 0.5).found] == [0.9, 0.7]
    assert [box.score for box in pick_boxes(FOUND, "", 0.0, most=1).found] == [0.9, 0.7]
    assert [box.score for box in pick_boxes(FOUND, "cat\nbird").found] == [0.8]
    assert list_boxes(FOUND) == (["dog", "cat", "dog", "dog"], [0.9, 0.8, 0.4, 0.7], 4)


def test_a_mask_is_one_inside_its_boxes():
    mask = boxes_to_mask(pick_boxes(FOUND, "dog", 0.5)).values
    assert mask.shape == (2, 8, 8) and mask.sum().item() == 12 + 1 and mask[0, 1:4, 2:6].min() == 1
    assert boxes_to_mask(pick_boxes(FOUND, "dog", 0.5), grow=1).values[0].sum() == 30
    assert boxes_to_mask(pick_boxes(FOUND, "bird")).values.sum() == 0


def test_boxes_are_drawn_on_their_own_pictures_in_the_colour_of_their_label():
    blank = Image(torch.zeros(2, 200, 200, 3))
    boxes = Boxes((Box("dog", 0.9, 20, 10, 180, 150), Box("cat", 0.9, 0, 160, 9, 169)), 200, 200, 2)
    first, second = draw_boxes(blank, boxes, 3).pixels
    assert second.sum() == 0 and first[:10].sum() == 0 and first[30:147, 100:177].sum() == 0
    dog, cat = first[149, 100], first[168, 5]
    assert torch.equal(first[147:150, 20:180], dog.expand(3, 160, 3)) and dog.max() == 1
    assert not torch.equal(dog, cat)
    with pytest.raises(ValueError, match="draw them on the pictures they were found in"):
        draw_boxes(Image(torch.zeros(1, 8, 8, 3)), boxes)


def test_semantic_segments_are_those_of_the_processor(bench: Bench):
    module: Any = has(bench, tiny_vision.write_semantic)
    found: Segments = given(bench, lambda: segment(load_vision_model("tiny"), any_image(40, 30, 2)))
    used = processor(bench)
    with torch.no_grad():
        output = module(**used(images=pictures(2), return_tensors="pt"))
    plans: list[Tensor] = used.post_process_semantic_segmentation(output, target_sizes=[(30, 40)] * 2)
    for each, mask in zip(found.found, found.masks, strict=True):
        number = list(tiny_vision.LABELS.values()).index(each.label)
        assert torch.equal(mask.bool(), plans[each.picture] == number)
    assert found.masks.sum(0).sum() == 2 * 30 * 40
    names = given(bench, lambda: list_segments(segment(load_vision_model("tiny"), any_image(40, 30, 2))))
    first = names[0]
    mask = segments_to_mask(found, first).values
    assert mask.shape == (2, 30, 40) and torch.equal(mask[0], found.masks[0])


def test_things_are_told_apart_as_mask2former_does(bench: Bench):
    module: Any = has(bench, tiny_vision.write_instances)
    found: Segments = given(bench, lambda: segment(load_vision_model("tiny"), any_image(40, 30), threshold=0.1))
    used = processor(bench)
    with torch.no_grad():
        output = module(**used(images=pictures(), return_tensors="pt"))
    (expected,) = used.post_process_instance_segmentation(output, threshold=0.1, target_sizes=[(30, 40)])
    assert [each.label for each in found.found] == [
        tiny_vision.LABELS[each["label_id"]] for each in expected["segments_info"]
    ] and found.found
    for each, mask in zip(expected["segments_info"], found.masks, strict=True):
        assert torch.equal(mask.bool(), expected["segmentation"] == each["id"])
    whole: Segments = given(bench, lambda: segment(load_vision_model("tiny"), any_image(40, 30), per_object=False))
    assert whole.masks.sum() == 30 * 40


def test_a_caption_is_what_the_network_generates_word_by_word(bench: Bench):
    module: Any = has(bench, tiny_vision.write_captioner)
    (said,) = given(bench, lambda: caption(load_vision_model("tiny"), any_image(40, 30), longest=6))
    words = lib.AutoTokenizer.from_pretrained(folder(bench))
    seen = processor(bench)(images=pictures(), return_tensors="pt")
    with torch.no_grad():
        made = module.generate(**seen, max_new_tokens=6, do_sample=False)
    assert said == words.decode(made[0], skip_special_tokens=True).strip() and said
    (going_on,) = given(
        bench, lambda: caption(load_vision_model("tiny"), any_image(40, 30), beginning="the blue", longest=3)
    )
    assert going_on.startswith("the blue")


def test_what_was_detected_is_masked_for_inpainting(bench: Bench):
    has(bench, tiny_vision.write_detector)
    found: Boxes = given(bench, lambda: detect(load_vision_model("tiny"), any_image(40, 30), threshold=0.0))
    label = found.found[0].label
    mask: Mask = given(
        bench,
        lambda: invert_mask(
            boxes_to_mask(pick_boxes(detect(load_vision_model("tiny"), any_image(40, 30), 0.0), label, most=1))
        ),
    )
    box = found.found[0]
    area = (round(box.right) - round(box.left)) * (round(box.bottom) - round(box.top))
    assert (1 - mask.values).sum() == area > 0
