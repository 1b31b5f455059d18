"""The page in headless Chromium: what a person sees and does."""

import shutil

import pytest
from helpers import read
from playwright.sync_api import sync_playwright

from s11_fastai.report.page import write_page
from s11_fastai.runs.records import read_records

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed")


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    """A page on which anything that goes wrong, or goes out, fails the test."""
    page, wrong = browser.new_page(viewport={"width": 1280, "height": 900}), []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: wrong.append(request.url) if seen(request) else None)
    yield page
    page.close()
    assert wrong == []


def seen(request) -> bool:
    """Whether it is for more than the file itself."""
    return not request.url.startswith("data:") and not (
        request.url.startswith("file:") and request.is_navigation_request()
    )


@pytest.fixture(scope="module")
def cifar10_page(finished, tmp_path_factory):
    """The page of a finished run that takes its images for CIFAR-10's."""
    import json

    out = shutil.copytree(finished[0], tmp_path_factory.mktemp("page") / "r")
    (out / "env.json").write_text(json.dumps(read(out / "env.json") | {"data": "CIFAR-10"}))
    return write_page(read_records(out))


def test_the_curves_answer_to_the_pointer_and_to_the_keys(page, cifar10_page, finished):
    page.goto(cifar10_page.as_uri())
    for key in ("accuracy", "loss", "schedule", "lr_find"):
        chart = page.locator(f"#chart-{key}")
        chart.scroll_into_view_if_needed()
        assert chart.locator("output").inner_text() == ""
        chart.locator("svg").first.hover(position={"x": 300, "y": 100})
        assert any(c.isdigit() for c in chart.locator("output").inner_text()), key
    chart = page.locator("#chart-accuracy")
    chart.locator("svg").first.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    said = chart.locator("output").inner_text()
    assert said.startswith("epoch 1: train ")
    page.keyboard.press("ArrowRight")
    assert chart.locator("output").inner_text().startswith("epoch 2: train ")


def test_the_references_log_switches_on_and_off(page, cifar10_page):
    page.goto(cifar10_page.as_uri())
    line = page.locator("#chart-accuracy polyline.reference").first
    assert not line.is_visible()
    page.locator("#overlay").check()
    assert line.is_visible()
    page.locator("#chart-accuracy svg").first.hover(position={"x": 300, "y": 100})
    assert "reference, test" in page.locator("#chart-accuracy output").inner_text()
    page.locator("#overlay").uncheck()
    assert not line.is_visible()


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(page, cifar10_page, width):
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(cifar10_page.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_dark_mode_changes_the_colours_and_paper_takes_light_ones(page, cifar10_page):
    page.emulate_media(color_scheme="dark")
    page.goto(cifar10_page.as_uri())
    ground = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(ground) == "rgb(22, 24, 28)"
    page.emulate_media(color_scheme="light")
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate(ground) == "rgb(255, 255, 255)"


def test_a_run_without_news_does_not_pose_as_running(page, finished, tmp_path, monkeypatch):
    out = shutil.copytree(finished[0], tmp_path / "r")
    (out / "results.json").unlink()
    page.goto(write_page(read_records(out), "running").as_uri())
    status = page.locator("#status")
    assert "Running: 3 of 3 epochs are over" in status.inner_text()
    assert "no update" not in status.inner_text()
    monkeypatch.setattr("s11_fastai.report.page.time.time", lambda: 1_700_000_000.0)
    page.goto(write_page(read_records(out), "running").as_uri())
    assert "There has been no update for" in status.inner_text()
    assert "the run has probably ended" in status.inner_text()
