"""The page in headless Chromium: what a person sees and does."""

import json
import shutil
import time
from dataclasses import replace

import pytest
from axe_playwright_python.sync_playwright import Axe
from helpers import altered, read
from playwright.sync_api import sync_playwright

from s11_fastai.report.comparison import write_comparison
from s11_fastai.report.groups import group_by_settings
from s11_fastai.report.page import write_page
from s11_fastai.runs.records import read_records
from s11_fastai.storage import Folder

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed")
CHARTS = ("accuracy", "error", "loss", "step_loss", "schedule", "lr_find")


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
def pages(finished, tmp_path_factory):
    """The page of a run in each state; it takes its images for CIFAR-10's."""
    top = tmp_path_factory.mktemp("pages")
    for state in ("finished", "running", "stopped", "begun"):
        out = shutil.copytree(finished[0], top / state)
        (out / "env.json").write_text(json.dumps(read(out / "env.json") | {"data": "CIFAR-10"}))
        if state != "finished":
            (out / "results.json").unlink()
        if state == "begun":
            for name in ("history.csv", "steps.csv", "classes.json"):
                (out / name).unlink()
            shutil.rmtree(out / "figures")
        records = read_records(out)
        write_page(Folder(out), records, "stopped" if state == "begun" else state)
    return {out.name: (out / "report.html").as_uri() for out in top.iterdir()}


def values(page, key: str) -> str:
    return page.locator(f"#chart-{key} .values").inner_text()


def window(page) -> tuple[float, float]:
    """The epochs that are shown."""
    low, high = (float(page.locator(name).input_value()) for name in ("#from", "#to"))
    return low, high


def drag(page, key: str, start: float, end: float) -> None:
    """With the mouse, over a part of a curve's width."""
    box = page.locator(f"#plot-{key}").bounding_box()
    page.mouse.move(box["x"] + start * box["width"], box["y"] + 90)
    page.mouse.down()
    page.mouse.move(box["x"] + (start + end) / 2 * box["width"], box["y"] + 90)
    page.mouse.move(box["x"] + end * box["width"], box["y"] + 90)
    page.mouse.up()


def test_the_pointer_reads_every_curve_and_leaves_no_cursor_behind(page, pages):
    page.goto(pages["finished"])
    for key in CHARTS:
        plot = page.locator(f"#plot-{key}")
        plot.scroll_into_view_if_needed()
        assert values(page, key) == ""
        plot.hover(position={"x": 300, "y": 100})
        assert any(c.isdigit() for c in values(page, key)), key
        page.mouse.move(1, 1)
        assert values(page, key) == ""
        assert page.locator(".cursor line").count() == 0


def test_a_cursor_shows_the_same_place_in_all_curves_over_the_epochs(page, pages):
    page.goto(pages["finished"])
    page.locator("#plot-accuracy").hover(position={"x": 300, "y": 100})
    assert page.locator(".cursor line").count() == 5
    assert values(page, "loss").startswith("epoch 2: train ")
    assert values(page, "schedule").startswith("epoch 2.00: lr ")
    assert values(page, "lr_find") == ""


def test_the_keys_read_zoom_and_are_told_to_a_screen_reader(page, pages, finished):
    page.goto(pages["finished"])
    plot, history = page.locator("#plot-accuracy"), read_records(finished[0]).history
    plot.focus()
    page.keyboard.press("ArrowRight")
    for row in history:
        said = plot.get_attribute("aria-valuetext")
        assert said == (
            f"epoch {row.epoch}: train {100 * row.train_accuracy:.2f}%, "
            f"test {100 * row.valid_accuracy:.2f}%"
        )
        assert plot.get_attribute("aria-valuenow") == str(row.epoch - 1)
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Home")
    assert plot.get_attribute("aria-valuetext").startswith("epoch 1: ")
    page.keyboard.press("+")
    assert window(page) == (1, 2)
    now, most = (int(plot.get_attribute(f"aria-value{name}")) for name in ("now", "max"))
    assert now <= most
    page.keyboard.press("Escape")
    assert plot.get_attribute("aria-valuetext").startswith("no value chosen")
    assert plot.get_attribute("aria-valuenow") == "0"
    page.keyboard.press("0")
    assert window(page) == (1, 3)
    page.keyboard.press("End")
    page.keyboard.press("+")
    assert window(page) == (2, 3)
    page.keyboard.press("+")
    assert window(page) == (2.5, 3)
    page.keyboard.press("-")
    page.keyboard.press("-")
    assert window(page) == (1, 3)
    page.keyboard.press("Escape")
    assert values(page, "accuracy") == ""


def test_dragging_zooms_all_curves_over_the_epochs_and_a_double_click_goes_back(page, pages):
    page.goto(pages["finished"])
    whole = page.locator("#plot-schedule polyline").first.get_attribute("points")
    test_begins = page.locator("#plot-lr_find polyline").first.get_attribute("points")
    drag(page, "accuracy", 0.6, 0.9)
    low, high = window(page)
    assert 1.5 < low < 2.5 < high < 3
    assert page.locator("#plot-schedule polyline").first.get_attribute("points") != whole
    assert page.locator("#plot-lr_find polyline").first.get_attribute("points") == test_begins
    page.locator("#plot-loss").dblclick(position={"x": 300, "y": 100})
    assert window(page) == (1, 3)
    assert page.locator("#plot-schedule polyline").first.get_attribute("points") == whole


def test_epochs_can_be_chosen_without_dragging(page, pages):
    page.goto(pages["finished"])
    page.locator("#from").fill("2")
    page.locator("#from").press("Enter")
    assert window(page) == (2, 3)
    page.locator("#from").fill("")  # no number: nothing to show, so nothing changes
    page.locator("#from").press("Enter")
    assert window(page) == (2, 3)
    page.locator("#all").click()
    assert window(page) == (1, 3)
    page.locator("#last").click()
    assert window(page) == (1, 3)  # of three epochs the last ten are all


def test_a_value_that_leaves_a_linear_axis_stands_at_its_edge(page, finished, tmp_path):
    out = shutil.copytree(finished[0], tmp_path / "r")
    records = read_records(out)
    records.history[1] = records.history[1]._replace(valid_loss=98.7654321)
    page.goto(write_page(Folder(out), records).as_uri())
    chart = page.locator("#chart-loss")
    assert "98.7654" not in chart.locator("svg").first.inner_html()
    chart.locator(".log").uncheck()
    assert "98.7654" in chart.locator("svg").first.inner_html()
    chart.locator(".log").check()
    assert "98.7654" not in chart.locator("svg").first.inner_html()


def test_smoothing_goes_from_the_steps_themselves_to_nearly_none(page, pages):
    page.goto(pages["finished"])
    raw, smooth = page.locator("#plot-step_loss polyline").all()
    page.locator(".smoothing").fill("0")
    raw, smooth = page.locator("#plot-step_loss polyline").all()
    assert raw.get_attribute("points") == smooth.get_attribute("points")
    page.locator(".smoothing").fill("0.99")
    raw, smooth = page.locator("#plot-step_loss polyline").all()
    assert raw.get_attribute("points") != smooth.get_attribute("points")


def test_a_legend_switches_lines_off_but_never_the_last(page, pages):
    page.goto(pages["finished"])
    train, test = (page.locator(f'#chart-loss [data-kind="{kind}"]') for kind in ("train", "valid"))
    train.click()
    assert (train.get_attribute("aria-pressed"), test.get_attribute("aria-pressed")) == (
        "false",
        "true",
    )
    assert page.locator("#plot-loss polyline").count() == 1
    test.click()
    assert page.locator("#plot-loss polyline").count() == 1
    train.click()
    assert page.locator("#plot-loss polyline").count() == 2


def test_the_references_log_takes_no_room_until_it_is_shown(page, pages, finished):
    page.goto(pages["finished"])
    lines, ticks = page.locator("#plot-accuracy polyline"), page.locator("#plot-accuracy svg")
    before = ticks.inner_html()
    assert lines.count() == 2
    page.locator("#overlay").check()
    assert lines.count() == 4
    page.locator("#plot-accuracy").hover(position={"x": 300, "y": 100})
    assert "reference test, its 24 epochs as 3 " in values(page, "accuracy")
    for kind in ("train", "valid"):
        page.locator(f'#chart-accuracy [data-kind="{kind}"]').click()
    assert lines.count() == 2
    page.locator("#overlay").uncheck()  # which would leave no line
    assert lines.count() == 2
    assert ticks.inner_html() == before


def test_a_page_that_is_loaded_again_keeps_zoom_choices_focus_and_place(page, pages):
    page.clock.install()
    page.goto(pages["running"])
    page.locator("#overlay").check()
    page.locator("#chart-loss .log").uncheck()
    drag(page, "accuracy", 0.6, 0.9)
    page.locator("#plot-schedule").focus()
    page.evaluate("scrollTo(0, 700)")
    kept = window(page), page.evaluate("scrollY")
    page.evaluate("window.old = true")
    with page.expect_navigation():
        page.clock.run_for(21_000)
    assert page.evaluate("window.old") is None
    assert (window(page), page.evaluate("scrollY")) == kept
    assert page.locator("#overlay").is_checked()
    assert not page.locator("#chart-loss .log").is_checked()
    assert page.evaluate("document.activeElement.id") == "plot-schedule"


def test_a_page_is_loaded_again_but_while_somebody_types(page, pages):
    page.clock.install()
    page.goto(pages["running"])
    page.locator("#overlay").check()  # and the focus stays there
    with page.expect_navigation():
        page.clock.run_for(21_000)
    page.locator("#to").press_sequentially("2")
    page.evaluate("window.old = true")
    page.clock.run_for(60_000)
    assert page.evaluate("window.old")
    page.locator("#to").press("Enter")
    with page.expect_navigation():
        page.clock.run_for(6_000)


def test_a_picture_opens_large_and_closes_where_it_was(page, pages):
    page.goto(pages["finished"])
    picture = page.locator("#picture-confusion")
    picture.scroll_into_view_if_needed()
    place = page.evaluate("scrollY")
    picture.locator(".open").click()
    assert picture.bounding_box()["width"] == 1280
    assert picture.locator("figcaption").is_visible()
    page.keyboard.press("Escape")
    assert picture.bounding_box()["width"] < 1280
    picture.locator(".open").click()
    picture.locator(".close").click()
    assert not picture.locator(".close").is_visible()
    assert abs(page.evaluate("scrollY") - place) < 900


def test_on_a_phone_a_large_picture_is_as_wide_as_its_letters_need(page, pages):
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(pages["finished"])
    page.locator("#picture-misclassified .open").click()
    assert page.locator("#picture-misclassified img").bounding_box()["width"] > 900
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("state", ["finished", "running", "stopped", "begun"])
def test_nothing_is_wider_than_the_window_and_axe_finds_no_fault(page, pages, state):
    """axe-core's rules: roles, names, contrast, landmarks, order of headings."""
    page.goto(pages[state])
    for width, colours in ((1280, "light"), (390, "dark")):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=colours)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()


def test_letters_of_curves_keep_their_size_on_a_phone(page, pages):
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(pages["finished"])
    scale = "(svg => svg.getBoundingClientRect().width / svg.viewBox.baseVal.width)"
    assert page.locator(".plot svg").count() == len(CHARTS)
    for svg in page.locator(".plot svg").all():
        assert svg.evaluate(scale) == pytest.approx(1, abs=0.01)


def test_a_finger_reads_a_curve_and_scrolls_the_page(browser, pages):
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True)
    page = context.new_page()
    page.goto(pages["finished"])
    page.locator("#plot-loss").tap(position={"x": 200, "y": 100})
    assert values(page, "loss").startswith("epoch 2: ")
    page.locator("h1").tap()
    assert values(page, "loss") == ""
    touch = page.locator("#plot-loss").evaluate("e => getComputedStyle(e).touchAction")
    assert set(touch.split()) == {"pan-y", "pinch-zoom"}
    hint = page.locator(".hint").inner_text()
    assert "Touch a curve" in hint
    assert "Drag across" not in hint
    assert not page.locator('#chart-accuracy [data-kind="reference test"]').is_visible()
    context.close()


def test_a_best_epoch_without_a_mistake_is_marked_within_the_picture(page, finished, tmp_path):
    """The error's axis is logarithmic, and has no place for zero."""
    out = altered(finished[0], tmp_path / "r", 1.0)
    page.goto(write_page(Folder(out), read_records(out)).as_uri())
    ring = page.locator("#plot-error circle.ring")
    height = page.locator("#plot-error svg").evaluate("e => e.viewBox.baseVal.height")
    assert float(ring.get_attribute("cy")) == height - 38


def test_dark_mode_changes_the_colours_and_paper_takes_light_ones(page, pages):
    page.emulate_media(color_scheme="dark")
    page.goto(pages["finished"])
    ground = "getComputedStyle(document.body).backgroundColor"
    filters = "[...document.querySelectorAll('.pictures img')].map(e => getComputedStyle(e).filter)"
    assert page.evaluate(ground) == "rgb(22, 24, 28)"
    assert "none" not in page.evaluate(filters)
    page.emulate_media(color_scheme="light")
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    assert set(page.evaluate(filters)) == {"none"}
    assert not page.locator(".tools").is_visible()
    assert page.locator("#plot-accuracy svg").is_visible()


def test_a_run_without_news_does_not_pose_as_running(page, finished, tmp_path, monkeypatch):
    out = shutil.copytree(finished[0], tmp_path / "r")
    (out / "results.json").unlink()
    page.goto(write_page(Folder(out), read_records(out), "running").as_uri())
    status = page.locator("#status")
    assert "Running: 3 of 3 epochs are over" in status.inner_text()
    assert "no update" not in status.inner_text()
    monkeypatch.setattr("s11_fastai.report.page.time.time", lambda: 1_700_000_000.0)
    page.goto(write_page(Folder(out), read_records(out), "running").as_uri())
    assert "There has been no update for" in status.inner_text()
    assert "the run has probably ended" in status.inner_text()
    assert str(out) in status.inner_text()


@pytest.mark.parametrize(("minutes", "ended"), [(20, False), (90, True)])
def test_a_first_epoch_may_take_long(page, finished, tmp_path, monkeypatch, minutes, ended):
    out = shutil.copytree(finished[0], tmp_path / "r")
    (out / "results.json").unlink()
    begun = replace(read_records(out), history=[], steps=[], results=None)
    written = time.time() - 60 * minutes
    monkeypatch.setattr("s11_fastai.report.page.time.time", lambda: written)
    page.goto(write_page(Folder(out), begun, "running").as_uri())
    status = page.locator("#status").inner_text()
    assert status.startswith("Running")
    assert ("the run has probably ended" in status) == ended


@pytest.fixture(scope="module")
def comparison(finished, tmp_path_factory):
    """The page of twelve groups: A has three seeds, and one epoch less than the others."""
    top = tmp_path_factory.mktemp("comparison")
    first = read_records(shutil.copytree(finished[0], top / "a-run"))
    short = [row._replace(valid_accuracy=0.1) for row in first.history[:2]]
    runs = [replace(first, history=first.history[:2])]
    for seed in (1, 2):
        settings = replace(first.settings, seed=seed)
        runs.append(replace(first, path=top / f"seed-{seed}", settings=settings, history=short))
    for i in range(11):
        settings = replace(first.settings, wd=0.1 + i)
        history = [row._replace(valid_accuracy=0.3 + 0.05 * i) for row in first.history]
        steps = [step._replace(lr=step.lr * (2 + i)) for step in first.steps]
        path = top / f"another-run-with-a-rather-long-name-{i}"
        runs.append(replace(first, path=path, settings=settings, history=history, steps=steps))
    return write_comparison(top / "c.html", group_by_settings(runs)).as_uri()


def test_a_comparison_shows_means_with_their_runs_and_reads_what_is_there(page, comparison):
    page.goto(comparison)
    for key in ("accuracy", "error", "loss", "schedule"):
        assert page.locator(f"#plot-{key} polyline").count() == 12 + 3
        assert page.locator(f"#plot-{key} polyline.faint.c0").count() == 3
    plot = page.locator("#plot-accuracy")
    plot.focus()
    page.keyboard.press("ArrowRight")
    said = plot.get_attribute("aria-valuetext").replace("\u00a0", " ")
    assert said.startswith("epoch 1: A ")
    assert "%, B 30.00%, C 35.00%, D 40.00%" in said
    assert said.count("±") == 1
    page.keyboard.press("End")  # A has ended before
    said = plot.get_attribute("aria-valuetext").replace("\u00a0", " ")
    assert said.startswith("epoch 3: B 30.00%, C 35.00%, D 40.00%")
    assert plot.get_attribute("aria-valuenow") == "2"
    page.locator("#plot-accuracy").hover(position={"x": 300, "y": 100})
    assert page.locator("#plot-loss .cursor circle").count() == 12 + 3


def test_a_line_that_is_switched_off_is_off_in_all_curves_of_a_comparison(page, comparison):
    page.goto(comparison)
    page.locator("#chart-loss .legend button").first.click()
    for key in ("accuracy", "error", "loss", "schedule"):
        assert page.locator(f"#plot-{key} polyline").count() == 11
        button = page.locator(f"#chart-{key} .legend button").first
        assert button.get_attribute("aria-pressed") == "false"
    for i in range(1, 12):
        page.locator("#chart-error .legend button").nth(i).click()
    assert page.locator("#plot-accuracy polyline").count() == 1
    page.reload()
    assert page.locator("#plot-accuracy polyline").count() == 1


def test_a_comparison_fits_the_window_and_axe_finds_no_fault(page, comparison):
    page.goto(comparison)
    for width, colours in ((1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=colours)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
    names = page.locator("#chart-loss .legend button").all_inner_texts()
    assert len({name.split()[0] for name in names}) == 12
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 718, "height": 900})  # of A4, between margins
    assert page.locator("#plot-accuracy svg").is_visible()
    assert page.locator(".scroll").count() > 0
    for table in page.locator(".scroll").all():
        assert table.evaluate("e => e.scrollWidth <= e.clientWidth")


def test_a_comparison_leads_to_the_page_of_a_run(page, comparison):
    page.goto(comparison)
    page.get_by_role("link").click()
    assert page.url.endswith("/a-run/report.html")
    page.locator("#plot-accuracy").hover(position={"x": 300, "y": 100})
    assert values(page, "accuracy").startswith("epoch 2: train ")
