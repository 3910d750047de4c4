"""Editor documents become API-format as an editor sends them."""

import json
from typing import Any

import pytest

from graph.catalogue import Catalogue
from graph.folders import Folders
from graph.resolve import resolve
from graph.workflow import read
from nodes.engine import built_in
from tests.canvas import DATA, INFOS, NOW, api, canvas, converted, drawn, fixture, info, refused
from workflows.editor.api_form import to_api


def save(node_id: int, source: tuple[int | str, int], **more: Any) -> dict[str, Any]:
    return drawn(node_id, "SaveImage", ["x"], links={"images": source}, **more)


def invert(node_id: int | str, source: tuple[int | str, int], **more: Any) -> dict[str, Any]:
    return drawn(node_id, "ImageInvert", links={"image": source}, **more)


def load(node_id: int | str, **more: Any) -> dict[str, Any]:
    return drawn(node_id, "LoadImage", ["boat.png", "image"], **more)


LOADED = ("LoadImage", {"image": "boat.png"})


def test_the_default_graph_of_the_editor():
    found = converted(fixture("text_to_image"))
    assert found.warnings == ()
    assert found.document == {
        "4": {
            "class_type": "CheckpointLoaderSimple",
            "inputs": {"ckpt_name": "v1-5-pruned-emaonly-fp16.safetensors"},
            "_meta": {"title": "Load Checkpoint"},
        },
        "5": {
            "class_type": "EmptyLatentImage",
            "inputs": {"width": 512, "height": 512, "batch_size": 1},
            "_meta": {"title": "Empty Latent Image"},
        },
        "6": {
            "class_type": "CLIPTextEncode",
            "inputs": {
                "text": "beautiful scenery nature glass bottle landscape, , purple galaxy bottle,",
                "clip": ["4", 1],
            },
            "_meta": {"title": INFOS["CLIPTextEncode"]["display_name"]},
        },
        "7": {
            "class_type": "CLIPTextEncode",
            "inputs": {"text": "text, watermark", "clip": ["4", 1]},
            "_meta": {"title": "Negative"},
        },
        "3": {
            "class_type": "KSampler",
            "inputs": {
                "seed": 156680208700286,
                "steps": 20,
                "cfg": 8,
                "sampler_name": "euler",
                "scheduler": "normal",
                "denoise": 1,
                "model": ["4", 0],
                "positive": ["6", 0],
                "negative": ["7", 0],
                "latent_image": ["5", 0],
            },
            "_meta": {"title": "KSampler"},
        },
        "8": {
            "class_type": "VAEDecode",
            "inputs": {"samples": ["3", 0], "vae": ["4", 2]},
            "_meta": {"title": "VAE Decode"},
        },
        "9": {
            "class_type": "SaveImage",
            "inputs": {"filename_prefix": "ComfyUI", "images": ["8", 0]},
            "_meta": {"title": "Save Image"},
        },
    }
    assert list(found.document) == ["4", "5", "6", "7", "3", "8", "9"]


def test_reroutes_primitives_muted_and_bypassed_nodes():
    assert api(fixture("reroutes_primitives_muted_bypassed")) == {
        "1": ("CheckpointLoaderSimple", {"ckpt_name": "loomlet"}),
        "5": ("CLIPTextEncode", {"text": "a red house \nin the snow", "clip": ["1", 1]}),
        "6": ("CLIPTextEncode", {"text": "", "clip": ["1", 1]}),
        "9": ("EmptyLatentImage", {"width": 128, "height": 128, "batch_size": 1}),
        "10": (
            "KSampler",
            {
                "seed": 77,
                "steps": 6,
                "cfg": 2,
                "sampler_name": "euler",
                "scheduler": "normal",
                "denoise": 1,
                "model": ["1", 0],
                "positive": ["5", 0],
                "negative": ["6", 0],
                "latent_image": ["9", 0],
            },
        ),
        "12": ("VAEDecode", {"samples": ["10", 0], "vae": ["1", 2]}),
        "14": ("SaveImage", {"images": ["12", 0], "filename_prefix": "2024-03-07/house_77"}),
    }


def test_subgraphs_within_subgraphs_with_promoted_widgets():
    found = api(fixture("subgraphs"))
    assert list(found) == ["1", "2:11:31", "2:11:32", "2:12", "2:13", "2:14", *[f"3:{each}" for each in
                           ("11:31", "11:32", "12", "13", "14")], "4", "5"]  # fmt: skip
    assert found["2:11:31"] == ("CLIPTextEncode", {"text": "a blue boat at sea", "clip": ["1", 1]})
    assert found["3:11:31"] == ("CLIPTextEncode", {"text": "a house", "clip": ["1", 1]})
    assert found["2:11:32"] == ("CLIPTextEncode", {"text": "blurry", "clip": ["1", 1]})
    assert (found["2:13"][1]["seed"], found["3:13"][1]["seed"]) == (21, 4)
    assert found["2:13"][1]["positive"] == ["2:11:31", 0] and found["2:13"][1]["negative"] == ["2:11:32", 0]
    assert found["3:13"][1]["model"] == ["1", 0] and found["3:14"][1] == {"samples": ["3:13", 0], "vae": ["1", 2]}
    assert found["4"] == ("ImageBatch", {"image1": ["2:14", 0], "image2": ["3:14", 0]})


def test_version_1_with_links_as_objects_and_native_reroutes():
    composite = {"x": 16, "y": 8, "resize_source": True, "destination": ["1", 0], "source": ["1", 0], "mask": ["2", 0]}
    assert api(fixture("version_1")) == {
        "1": LOADED,
        "2": ("LoadImageMask", {"image": "house_mask.png", "channel": "red"}),
        "3": ("ImageCompositeMasked", composite),
        "4": ("PreviewImage", {"images": ["3", 0]}),
    }


@pytest.mark.parametrize("name", [path.stem for path in DATA.glob("*.json")])
def test_every_fixture_is_valid(name: str):
    document = json.dumps(converted(fixture(name)).document)
    nodes = Catalogue(built_in().values())
    usable = document.replace("v1-5-pruned-emaonly-fp16.safetensors", "loomlet")
    assert resolve(read(json.loads(usable)), nodes, _folders()).steps


def _folders() -> Folders:
    from nodes.engine import usual_folders

    return usual_folders()


def test_a_link_counts_more_than_the_widget_beside_it():
    number = info(output=["INT"], value=["INT", {"default": 3}])
    infos = {**INFOS, "Number": number}
    document = canvas(
        drawn(1, "Number", [9], infos=infos),
        drawn(2, "SolidMask", [1.0, 8, 8], links={"width": (1, 0)}),
    )
    assert api(document, infos)["2"] == ("SolidMask", {"value": 1.0, "width": ["1", 0], "height": 8})


def test_a_widget_turned_into_an_input_and_left_unconnected_keeps_its_value():
    mask = drawn(2, "SolidMask", [1.0, 8, 16])
    mask["inputs"] = [{"name": "width", "type": "INT", "link": None, "widget": {"name": "width"}}]
    assert api(canvas(mask))["2"][1] == {"value": 1.0, "width": 8, "height": 16}


@pytest.mark.parametrize("mode", [0, 1, 3])
def test_other_modes_run(mode: int):
    assert api(canvas(load(1), save(2, (1, 0), mode=mode)))["2"] == (
        "SaveImage",
        {"filename_prefix": "x", "images": ["1", 0]},
    )


def test_ids_may_be_text():
    found = api(canvas(load("first"), invert("7:1", ("first", 0)), save(3, ("7:1", 0))))
    assert found["7:1"] == ("ImageInvert", {"image": ["first", 0]})
    assert found["3"][1]["images"] == ["7:1", 0]


def test_a_node_is_titled_by_its_document_or_its_class():
    found = converted(canvas(load(1, title="A boat"), load(2))).document
    assert [used["_meta"]["title"] for used in found.values()] == ["A boat", "Load Image"]


def test_nodes_come_after_what_they_need_else_as_the_editor_ran_them():
    document = canvas(save(1, (3, 0), order=0), load(2, order=9), load(3, order=5), load(4, order=4))
    assert list(api(document)) == ["4", "3", "1", "2"]


# Reroutes


def reroute(node_id: int, source: tuple[int, int] | None = None, **more: Any) -> dict[str, Any]:
    links = {} if source is None else {"": source}
    return drawn(node_id, "Reroute", inputs=[("", "*")], outputs=["*"], links=links, **more)


def test_reroutes_are_followed_however_many_there_are():
    chain = [reroute(node_id, (node_id - 1, 0)) for node_id in range(2, 3000)]
    assert api(canvas(load(1), *chain, save(3000, (2999, 0))))["3000"][1]["images"] == ["1", 0]


def test_a_reroute_from_nowhere_is_no_connection():
    assert api(canvas(reroute(1), save(2, (1, 0))))["2"][1] == {"filename_prefix": "x"}


def test_a_circle_of_reroutes_is_named_once():
    document = canvas(reroute(1, (3, 0)), reroute(2, (1, 0)), reroute(3, (2, 0)), save(4, (3, 0)), save(5, (1, 0)))
    (problem,) = refused(document)
    assert problem.kind == "cycle"
    assert "2 (Reroute) ← 1 (Reroute) ← 3 (Reroute) ← 2 (Reroute)" in problem.message


def test_a_circle_of_nodes_that_run_is_for_resolve_to_name():
    assert api(canvas(invert(1, (2, 0)), invert(2, (1, 0))))["1"][1] == {"image": ["2", 0]}


# Primitive nodes


def primitive(value: object, *control: object, **more: Any) -> dict[str, Any]:
    return drawn(1, "PrimitiveNode", [value, *control], outputs=["INT"], **more)


def solid(node_id: int, source: tuple[int, int], name: str = "width") -> dict[str, Any]:
    return drawn(node_id, "SolidMask", [1.0, 8, 8], links={name: source})


@pytest.mark.parametrize("mode", [0, 2, 4])
def test_a_primitive_node_gives_its_value_to_each_widget_it_leads_to(mode: int):
    document = canvas(primitive(24, "randomize", mode=mode), solid(2, (1, 0)), solid(3, (1, 0), "height"))
    found = api(document)
    assert found["2"][1] == {"value": 1.0, "width": 24, "height": 8}
    assert found["3"][1] == {"value": 1.0, "width": 8, "height": 24}


def test_a_primitive_node_gives_its_value_through_a_reroute():
    assert api(canvas(primitive(24, "fixed"), reroute(2, (1, 0)), solid(3, (2, 0))))["3"][1]["width"] == 24


def test_a_primitive_node_that_was_never_connected_gives_nothing():
    document = canvas(drawn(1, "PrimitiveNode", outputs=["*"]), solid(2, (1, 0)))
    assert api(document)["2"][1]["width"] == 8


# Muted and bypassed nodes


def test_what_comes_from_a_muted_node_is_left_out_and_told_where_it_is_needed():
    found = converted(canvas(load(1, mode=2, title="A boat"), invert(2, (1, 0)), save(3, (2, 0))))
    assert found.document["2"]["inputs"] == {}
    assert found.warnings == (
        "node 2 (ImageInvert), input 'image': it comes from node 1 (LoadImage “A boat”), which is muted, "
        "so it is left out",
    )


def test_a_widget_that_a_muted_node_would_fill_is_left_out_too():
    infos = {**INFOS, "Number": info(output=["INT"], value=["INT", {}])}
    found = converted(canvas(drawn(1, "Number", [9], infos=infos, mode=2), solid(2, (1, 0))), infos)
    assert found.document["2"]["inputs"] == {"value": 1.0, "height": 8}


def test_an_optional_input_from_a_muted_node_is_left_out_without_a_word():
    composite = drawn(3, "ImageCompositeMasked", [0, 0, False],
                      links={"destination": (1, 0), "source": (1, 0), "mask": (2, 0)})  # fmt: skip
    assert "mask" not in api(canvas(load(1), load(2, mode=2), composite))["3"][1]


PASSING: list[tuple[list[str], str, str | None]] = [
    # what the bypassed node takes, what it gives, which input is handed on
    (["IMAGE"], "IMAGE", "a"),
    (["MASK", "IMAGE"], "IMAGE", "b"),
    (["MASK", "*", "IMAGE"], "IMAGE", "c"),
    (["MASK", "IMAGE,MASK"], "IMAGE", "b"),
    (["MASK", "*"], "IMAGE", "b"),
    (["MASK", "LATENT"], "IMAGE", None),
    (["MASK", "IMAGE"], "*", "a"),
    ([], "IMAGE", None),
]


@pytest.mark.parametrize(("takes", "gives", "passed"), PASSING)
def test_a_bypassed_node_hands_on_the_input_that_fits(takes: list[str], gives: str, passed: str | None):
    names = [("abc"[at], each) for at, each in enumerate(takes)]
    sources = {name: (10 + at, 0) for at, (name, _) in enumerate(names)}
    bypassed = drawn(1, "Whatever", inputs=names, outputs=[gives], links=sources, mode=4)
    document = canvas(*(load(10 + at) for at in range(len(takes))), bypassed, save(2, (1, 0)))
    links = api(document)["2"][1]
    assert links.get("images") == (None if passed is None else [str(10 + "abc".index(passed)), 0])


def test_the_input_of_the_same_place_is_handed_on_before_others():
    bypassed = drawn(1, "Whatever", inputs=[("a", "IMAGE"), ("b", "IMAGE")], outputs=["IMAGE", "IMAGE"],
                     links={"a": (10, 0), "b": (11, 0)}, mode=4)  # fmt: skip
    found = api(canvas(load(10), load(11), bypassed, save(2, (1, 0)), save(3, (1, 1))))
    assert (found["2"][1]["images"], found["3"][1]["images"]) == (["10", 0], ["11", 0])


def test_bypassed_nodes_in_a_row_are_passed_and_a_muted_one_behind_them_counts():
    row = [invert(2, (1, 0), mode=4), reroute(3, (2, 0), mode=4), invert(4, (3, 0), mode=4)]
    assert api(canvas(load(1), *row, save(5, (4, 0))))["5"][1]["images"] == ["1", 0]
    found = converted(canvas(load(1, mode=2), *(_again(each) for each in row), save(5, (4, 0))))
    assert found.document["5"]["inputs"] == {"filename_prefix": "x"} and len(found.warnings) == 1


def _again(node: dict[str, Any]) -> dict[str, Any]:
    """The same node, with the link it had before it was numbered."""
    copy = json.loads(json.dumps(node))
    for slot in copy["inputs"]:
        slot["link"] = (node["id"] - 1, 0)
    return copy


def test_a_node_whose_class_is_unknown_may_be_muted_or_bypassed():
    slots: dict[str, Any] = {"inputs": [("image", "IMAGE")], "outputs": ["IMAGE"], "links": {"image": (1, 0)}}
    unknown = [drawn(2, "Sharpen", **slots, mode=4), drawn(3, "Blur", **slots, mode=2)]
    assert list(api(canvas(load(1), *unknown, save(4, (2, 0))))) == ["1", "4"]


# What cannot be followed


def test_a_link_that_is_not_there_counts_as_none_and_is_told():
    document = canvas(load(1), save(2, (1, 0)))
    document["links"] = []
    found = converted(document)
    assert found.document["2"]["inputs"] == {"filename_prefix": "x"}
    (warning,) = found.warnings
    assert "node 2 (SaveImage), input 'images': its link 1 is not in the document" in warning


def test_a_link_from_a_node_that_is_not_there_counts_as_none_and_is_told():
    (warning,) = converted(canvas(load(1), save(2, (17, 0)))).warnings
    assert "input 'images': it is linked to node 17, which is not in the document" in warning


def test_links_that_no_input_names_and_empty_places_do_not_matter():
    document = canvas(load(1), save(2, (1, 0)))
    document["links"] += [None, [77, 1, 0, 2, 0, "IMAGE"], [78, -1, 0, 5, 0, "IMAGE"]]
    assert list(api(document)) == ["1", "2"]


def test_an_input_nobody_declared_is_sent_if_it_is_linked():
    node = invert(2, (1, 0))
    node["inputs"].append({"name": "also", "type": "IMAGE", "link": (1, 0)})
    assert api(canvas(load(1), node))["2"][1] == {"image": ["1", 0], "also": ["1", 0]}


def test_unknown_classes_are_all_named_with_the_nearest():
    slots: dict[str, Any] = {"inputs": [("image", "IMAGE")], "links": {"image": (1, 0)}}
    problems = refused(canvas(load(1), drawn(2, "InvertImage", **slots), drawn(3, "SaveImages", **slots, title="Here")))
    assert [(each.kind, each.node_id) for each in problems] == [("unknown_class", "2"), ("unknown_class", "3")]
    assert str(problems[1]) == (
        "node 3 (SaveImages “Here”): there is no node called 'SaveImages' (did you mean 'SaveImage'?)"
    )


def test_an_unknown_node_that_is_connected_to_nothing_is_left_out_and_told():
    found = converted(canvas(load(1), drawn(2, "Label (pack)", title="Read me")))
    assert list(found.document) == ["1"]
    assert found.warnings == (
        "node 2 (Label (pack) “Read me”): there is no node called 'Label (pack)'; "
        "it is connected to nothing and left out",
    )


def test_a_document_of_unknown_nodes_alone_says_so():
    (problem,) = refused(canvas(drawn(1, "Label")))
    assert problem.kind == "unknown_class"


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("workflow>Two passes", "in the editor, convert it"),
        ("c1d5a7be-61f4-4e0c-9a55-2f6d2f6c0a01", "save the workflow"),
    ],
)
def test_what_a_definition_is_missing_for_says_what_to_do(kind: str, answer: str):
    (problem,) = refused(canvas(drawn(1, kind, outputs=["IMAGE"]), save(2, (1, 0))))
    assert problem.kind == "unknown_class" and answer in (problem.suggestion or "")


NO_DOCUMENTS: list[tuple[object, str]] = [
    ([], "a list of “nodes”"),
    ({"nodes": {}}, "a list of “nodes”"),
    ({"nodes": []}, "this workflow has no nodes"),
    (canvas(drawn(1, "Note", ["hello"])), "no nodes that run"),
    (canvas(load(1, mode=2)), "no nodes that run"),
    ({"nodes": [{"id": 1}]}, "node 1 (?): “nodes[0].type” is missing"),
    ({"nodes": [{"type": "A"}]}, "“nodes[0].id” is missing"),
    ({"nodes": [{"id": [], "type": "A"}]}, "“nodes[0].id” should be a number or text, found a list"),
    ({"nodes": [{"id": True, "type": "A"}]}, "“nodes[0].id” should be a number or text, found true"),
    ({"nodes": [{"id": 1, "type": None}]}, "“nodes[0].type” should be text, found null"),
    ({"nodes": [7]}, "“nodes[0]” should be an object, found 7"),
    ({"nodes": [{"id": 1, "type": "A", "inputs": 4}]}, "“nodes[0].inputs” should be a list, found 4"),
    (
        {"nodes": [{"id": 1, "type": "A", "inputs": [{"name": "a", "link": {}}]}]},
        "node 1 (?): “nodes[0].inputs[0].link” should be a number or text, found an object",
    ),
    ({"nodes": [load(1)], "links": {"1": 2}}, "“links” should be a list, found an object"),
    ({"nodes": [load(1)], "links": [[1, 2, 0, 3]]}, "“links[0].target_slot” is missing"),
    ({"nodes": [load(1)], "links": [[1, 2, "a", 3, 0]]}, "“links[0].origin_slot” should be a whole number"),
    ({"nodes": [load(1), load(1.0)]}, "two nodes have the id 1: LoadImage and LoadImage"),  # pyright: ignore[reportArgumentType]  # JSON's numbers are one type
    ({"nodes": [load(1)], "definitions": {"subgraphs": [3]}}, "“definitions.subgraphs[0]” should be an object"),
    (
        {"nodes": [load(1)], "definitions": {"subgraphs": [{"id": "a", "nodes": [{"id": 3}]}]}},
        "node 3 (?): “definitions.subgraphs[0].nodes[0].type” is missing",
    ),
]


@pytest.mark.parametrize(("document", "answer"), NO_DOCUMENTS)
def test_what_is_no_editor_document_is_refused(document: object, answer: str):
    (problem,) = refused(document)
    assert problem.kind == "not_a_workflow" and answer in str(problem)


def test_everything_of_the_wrong_shape_is_told_at_once():
    assert len(refused({"nodes": [{"id": 1}, {"type": "A"}, 5], "links": [3]})) == 4


# Values


def test_lists_are_wrapped_so_that_they_are_not_taken_for_links():
    infos = {"Pick": info(tags=["COMBO", {"options": ["a", "b"], "multiselect": True}])}
    assert api(canvas(drawn(1, "Pick", [["a", "b"]], infos=infos)), infos)["1"][1] == {
        "tags": {"__value__": ["a", "b"]}
    }


def test_choices_in_prompts_are_made_by_the_random_source_that_is_given():
    document = canvas(drawn(1, "CLIPTextEncode", ["a {red|blue|green} boat"]))
    texts = {json.dumps(to_api(document, INFOS).document["1"]["inputs"]) for _ in range(60)}
    assert texts == {json.dumps({"text": f"a {colour} boat"}) for colour in ("red", "blue", "green")}
    assert len({json.dumps(converted(document).document) for _ in range(20)}) == 1


def test_only_prompts_hold_choices():
    infos = {"Words": info(text=["STRING", {"multiline": True}])}
    document = canvas(drawn(1, "Words", ["{red|blue} // as it is"], infos=infos))
    assert api(document, infos)["1"][1] == {"text": "{red|blue} // as it is"}


@pytest.mark.parametrize(
    ("prefix", "name"),
    [
        ("%date:yy-M-d_hh.m.ss%", "24-3-7_09.5.02"),
        ("a/%SolidMask.width%x%Tall one.height%", "a/8x90"),
        ("%Name of my own.width%", "8"),
        ("%Count.value%", "24"),
        ("%LoadImage.image%", "a_b_boat.png"),
        (
            "%width%_%Nobody.width%_%SolidMask.nothing%_%year%_50%",
            "%width%_%Nobody.width%_%SolidMask.nothing%_%year%_50%",
        ),
    ],
)
def test_names_of_files_are_filled_in_with_dates_and_widgets(prefix: str, name: str):
    document = canvas(
        drawn(1, "PrimitiveNode", [24, "fixed"], outputs=["INT"], title="Count"),
        drawn(2, "SolidMask", [1.0, 8, 9], properties={"Node name for S&R": "SolidMask"}, title="Name of my own"),
        drawn(3, "SolidMask", [1.0, 80, 90], properties={"Node name for S&R": "Tall"}, title="Tall one"),
        drawn(4, "LoadImage", ["a/b:boat.png", "image"], properties={"Node name for S&R": "LoadImage"}, mode=2),
        drawn(5, "SaveImage", [prefix]),
    )
    found = to_api(document, INFOS, now=NOW)
    assert found.document["5"]["inputs"] == {"filename_prefix": name}
