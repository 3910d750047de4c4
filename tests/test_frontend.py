"""The pages in a real browser: ComfyUI's graph editor, logged in with a key, and this server's own page."""

import shutil
from collections.abc import Generator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from server.web.frontend import PACKAGE
from tests.commands import latentloom, opened
from tests.programs import Program, program
from tests.web_site import picture
from tests.workers import alone, chain, use

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MISSING = [
    name
    for name, found in (
        ("a Chromium", CHROMIUM),
        ("playwright", find_spec("playwright")),
        ("comfyui-frontend-package", find_spec(PACKAGE)),
    )
    if not found
]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"there is no {', no '.join(MISSING)}")

KEY = "ann-has-this-long-key"
PATIENCE = 120_000
"""Milliseconds after which a test gives up; nothing that works takes so long."""
STEPS = "KSampler.steps=4"
STOPPED = """
    window.stopped = [];
    // Whether it may evaluate texts, a library only tries.
    addEventListener("securitypolicyviolation", ({ blockedURI }) => blockedURI === "eval" || stopped.push(blockedURI));
"""
LOADED = "() => window.app?.graph?.nodes?.some(node => node.type === 'SaveImage')"
SHOWN = "() => app.graph.nodes.find(node => node.type === 'SaveImage').imgs?.some(image => image.naturalWidth)"


@pytest.fixture(scope="module")
def browser() -> "Generator[Browser]":
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])


@pytest.fixture(scope="module")
def editor(browser: "Browser", tmp_path_factory: pytest.TempPathFactory) -> "Generator[Page]":
    """The editor as somebody sees it who comes for the first time, and has a key."""
    data = tmp_path_factory.mktemp("editor")
    with program(data, "--frontend", "comfyui", "--api-key", f"ann={KEY}") as server:
        page = _page(browser, server)
        page.add_init_script(STOPPED)
        page.get_by_label("Key").fill(KEY)
        page.get_by_role("button", name="Log in").click()
        page.wait_for_function(LOADED)
        yield page


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Program]:
    with program(tmp_path_factory.mktemp("own")) as own:
        yield own


def _page(browser: "Browser", server: Program) -> "Page":
    # Wide enough for all nodes: what cannot be seen is not drawn, and its pictures are not loaded.
    page = browser.new_page(base_url=server.url, viewport={"width": 1600, "height": 700})
    page.set_default_timeout(PATIENCE)
    page.goto("/")
    return page


def queue(editor: "Page") -> None:
    editor.get_by_role("button", name="Run", exact=True).click()


def marked(editor: "Page", style: str) -> list[Any]:
    """The types of the nodes that are drawn with a frame of this style."""
    return editor.evaluate(
        "style => app.graph.nodes.filter(node => node.strokeStyles[style].call(node)).map(node => node.type)", style
    )


def test_the_editor_opens_a_workflow_and_shows_its_previews_its_picture_and_its_job(editor: "Page", tmp_path: Path):
    nodes = editor.request.get("/api/object_info").json()
    assert {"KSampler", "Spin"} < nodes.keys() <= set(editor.evaluate("Object.keys(LiteGraph.registered_node_types)"))

    editor.evaluate(
        """() => {
            window.previewed = new Set();
            app.api.addEventListener("b_preview_with_metadata", ({ detail }) => previewed.add(detail.nodeId));
            const sampler = app.graph.nodes.find(node => node.type === "KSampler");
            sampler.widgets.find(widget => widget.name === "steps").value = 4;
        }"""
    )
    queue(editor)
    editor.wait_for_function(SHOWN)
    assert editor.evaluate("[...previewed].map(id => app.graph.getNodeById(id).type)") == ["KSampler"]

    shown: str = editor.evaluate("app.graph.nodes.find(node => node.type === 'SaveImage').imgs[0].src")
    made = picture(editor.request.get(shown).body())
    (path,) = latentloom("run", "text_to_image", "--set", STEPS, data=tmp_path).files
    assert made.tobytes() == opened(path).tobytes()

    editor.get_by_role("button", name="0 active").click()
    editor.get_by_text(parse_qs(urlsplit(shown).query)["filename"][0]).first.wait_for()
    assert editor.evaluate("stopped") == []


def test_the_editor_marks_the_node_that_failed_and_the_one_whose_input_is_wrong(editor: "Page"):
    editor.evaluate("document => app.loadApiJson(document, 'failing')", chain("Fail"))
    queue(editor)
    editor.get_by_text("Fail failed").first.wait_for()
    assert marked(editor, "executionError") == ["Fail"]
    assert editor.evaluate("app.lastExecutionError.exception_message") == "the thread broke"

    editor.evaluate(
        """async () => {
            await app.loadGraphData();
            app.graph.nodes.find(node => node.type === "CheckpointLoaderSimple").widgets[0].value = "nowhere";
        }"""
    )
    queue(editor)
    editor.get_by_text("nowhere").first.wait_for()
    wrong = "app.graph.nodes.filter(node => node.has_errors).map(node => node.type)"
    assert editor.evaluate(wrong) == ["CheckpointLoaderSimple"]


def test_the_own_page_shows_what_runs_and_what_was_made(browser: "Browser", server: Program):
    page = _page(browser, server)
    page.get_by_text("connected", exact=True).wait_for()
    page.get_by_text("Nothing to do.").wait_for()

    waiting = server.ask("/prompt", {"prompt": alone("Wait")})["prompt_id"]
    running = page.locator(".job").filter(has_text="Wait")
    running.wait_for()
    running.get_by_role("button", name="stop").click()
    running.wait_for(state="detached")
    assert server.ask(f"/jobs/{waiting}")["status"] == "cancelled"

    drawing = {
        "1": use("SolidMask", value=0.5, width=24, height=24),
        "2": use("MaskToImage", mask=["1", 0]),
        "3": use("SaveImage", images=["2", 0]),
    }
    server.ask("/prompt", {"prompt": drawing})
    made = page.locator(".gallery img")
    made.wait_for()
    page.wait_for_function("() => document.querySelector('.gallery img').naturalWidth === 24")
    assert made.count() == 1
