"""The report's pages in a real browser: that they can be read, sorted, filtered and pointed at, everywhere and offline."""

import io
import shutil
from contextlib import contextmanager

import PIL.Image
import pretend
import pytest

from regioncount.reporting import report
from regioncount.reporting.page_parts import PageColumn, PageTable, document, render

HOSTILE = "<img src=x onerror=\"document.title='pwned'\">"
ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
ARGUMENTS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="module")
def browser():
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no browser: install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="there is no driver: install playwright")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Everything that a page can have, and names that are HTML."""
    results = tmp_path_factory.mktemp("results")
    directory = pretend.sweep(
        results,
        data=pretend.facts(f"digits {HOSTILE}"),
        measures=("accuracy", "parameter_norm"),
        snapshots=(0, 10),
        unfitted=(0,),
        failed=(3,),
        diverged=(7,),
        error=HOSTILE,
        overrides=["experiment=pretend", "x=" + "y" * 300],
    )
    report.report(directory)
    return directory


@contextmanager
def opened(browser, path, width=1280, **options):
    """A page, opened from disk; what it says on the console or asks of the network fails the test."""
    context = browser.new_context(viewport={"width": width, "height": 800}, **options)
    page = context.new_page()
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    yield page
    context.close()
    assert said == []
    assert asked == [path.as_uri()]


def column(page, table: str, title: str) -> list[str]:
    heads = [head.strip() for head in page.locator(f"#{table} thead th").all_text_contents()]
    return page.locator(f"#{table} tbody tr:visible td:nth-child({heads.index(title) + 1})").all_text_contents()


def draw_all(page) -> int:
    """Bring every figure into view, as a reader would; returns how many were drawn."""
    figures = page.locator(".plot")
    for number in range(figures.count()):
        figures.nth(number).scroll_into_view_if_needed()
        figures.nth(number).locator(".main-svg").first.wait_for(state="attached")
    return page.locator(".plot:has(.main-svg)").count()


def test_a_heading_sorts_its_column_by_mouse_and_keyboard(browser, sweep):
    with opened(browser, sweep / "report.html") as page:
        heading = page.locator("#runs th", has_text="learning rate")
        assert heading.get_attribute("aria-sort") == "none"
        before = column(page, "runs", "learning rate")
        heading.get_by_role("button").click()
        rising = column(page, "runs", "learning rate")
        assert rising != before
        assert rising == sorted(before, key=float)
        assert heading.get_attribute("aria-sort") == "ascending"
        heading.get_by_role("button").focus()
        page.keyboard.press("Enter")
        assert column(page, "runs", "learning rate") == sorted(before, key=float, reverse=True)
        assert heading.get_attribute("aria-sort") == "descending"
        # what has no number comes last, in either order
        for _ in range(2):
            page.locator("#runs th", has_text="test accuracy").get_by_role("button").click()
            assert column(page, "runs", "test accuracy (%)")[-2:] == ["–", "–"]
        assert heading.get_attribute("aria-sort") == "none"


def test_a_filter_leaves_the_rows_that_have_its_words(browser, sweep):
    with opened(browser, sweep / "report.html") as page:
        rows = page.locator("#runs tbody tr:visible")
        everything = rows.count()
        assert everything == 12
        page.get_by_label("Filter").fill("diverged")
        assert column(page, "runs", "status") == ["diverged"]
        page.get_by_label("Filter").fill("learning_rate=0.1 finished")
        assert set(column(page, "runs", "learning rate")) == {"0.1"}
        assert rows.count() == 2
        assert "2 of 12 rows" in page.locator("output").text_content()
        page.get_by_label("Filter").fill("no such thing")
        assert rows.count() == 0
        page.get_by_label("Filter").fill("")
        assert rows.count() == everything


def test_of_thousands_of_rows_the_first_in_order_are_shown(browser, tmp_path):
    """Sorting and filtering are of all rows; without scripts, and on paper, all are there."""
    rows = [[f"run{number}", str(number)] for number in range(1200)]
    table = PageTable("runs", "Runs", [PageColumn("run"), PageColumn("rate", "number")], rows)
    path = tmp_path / "page.html"
    path.write_text(document("Many", "Many", "", [("Every run", render("table.html", rows=table, example="run7"))]))
    with opened(browser, path) as page:
        assert column(page, "runs", "rate") == [str(number) for number in range(500)]
        for _ in range(2):
            page.locator("#runs th", has_text="rate").get_by_role("button").click()
        assert column(page, "runs", "rate") == [str(number) for number in range(1199, 699, -1)]
        page.get_by_label("Filter").fill("run=run3")
        assert column(page, "runs", "rate") == ["3"]
        assert "1 of 1200 rows" in page.locator("output").text_content()
        page.get_by_label("Filter").fill("run1")
        assert column(page, "runs", "rate") == [str(n) for n in range(1199, 0, -1) if str(n).startswith("1")]
        page.get_by_label("Filter").fill("")
        page.get_by_role("button", name="Show all 1,200 rows").click()
        assert len(column(page, "runs", "rate")) == 1200
        assert page.get_by_role("button", name="Show all").count() == 0
    with opened(browser, path) as page:
        page.emulate_media(media="print")
        assert len(column(page, "runs", "rate")) == 1200
    with opened(browser, path, java_script_enabled=False) as page:
        assert page.locator("#runs tbody tr").filter(visible=True).count() == 1200


def test_pointing_at_a_dot_says_which_it_is(browser, sweep):
    with opened(browser, sweep / "report.html") as page:
        plot = page.locator(".plot").first
        plot.scroll_into_view_if_needed()
        plot.locator(".main-svg").first.wait_for(state="attached")
        told, label = [], plot.locator(".hoverlayer .hovertext")
        dots = plot.locator(".scatterlayer .points path").all()
        assert len(dots) == 10 + 6  # finished runs, and configurations
        for dot in dots[::3]:
            box = dot.bounding_box()
            page.mouse.move(0, 0)
            label.wait_for(state="detached")
            page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            label.wait_for()
            told.append(" ".join(label.text_content().split()))
        # runs come first: the first, and the last of which a configuration is the average of two
        assert all(word in told[0] for word in ("learning rate 0.1", "batch size 32", "seed 0", "run "))
        assert any("2 runs" in text and " ± " in text for text in told)
        assert all("region count (line)" in text for text in told)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_it_can_be_read_on_a_phone_in_the_dark_and_on_paper(browser, sweep, width, scheme):
    with opened(browser, sweep / "report.html", width, color_scheme=scheme) as page:
        assert draw_all(page) == 5
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        picture = _picture(page, full_page=True)
        assert picture.width == width
        assert picture.height > 3000
        assert len(picture.getcolors(picture.width * picture.height)) > 100
        _check_lettering(page)
        light = picture.getpixel((2, 2))
        page.emulate_media(color_scheme="dark" if scheme == "light" else "light")
        _check_lettering(page)
        dark = _picture(page).getpixel((2, 2))
        if scheme == "dark":
            light, dark = dark, light
        assert min(light) > 240
        assert max(dark) < 60
        page.emulate_media(media="print")
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert not page.locator("nav, .filter").filter(visible=True).count()
        assert min(_picture(page).getpixel((2, 2))) > 240
        _check_lettering(page)


def _picture(page, **options) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(page.screenshot(**options))).convert("RGB")


def _check_lettering(page) -> None:
    """Figures have, or soon take, the colour of the page's own text."""
    from playwright.sync_api import expect

    expect(page.locator(".plot .xtitle").first).to_have_css("fill", page.evaluate("getComputedStyle(document.body).color"))


def test_names_are_shown_letter_by_letter_and_run_nothing(browser, sweep):
    for path in (sweep / "report.html", sweep.parent / "index.html"):
        with opened(browser, path) as page:
            assert "pwned" not in page.title()
            assert page.locator("img[src=x]").count() == 0
            assert page.get_by_text(HOSTILE).count() > 0


def test_everything_that_acts_can_be_reached_by_keyboard(browser, sweep):
    with opened(browser, sweep / "report.html") as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        # a box that scrolls can be scrolled by keyboard, and has a name
        for box in page.locator(".scroll, .wide").all():
            assert box.get_attribute("tabindex") == "0"
        unnamed = [node for node in page.get_by_role("region").all() if not node.get_attribute("aria-labelledby")]
        assert all(node.get_attribute("aria-label") for node in unnamed)
        assert page.get_by_role("heading", level=1).count() == 1


def test_the_index_leads_to_the_report(browser, sweep):
    with opened(browser, sweep.parent / "index.html", 390) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.get_by_role("link", name="pretend").get_attribute("href") == f"{sweep.name}/report.html"
