"""The report's pages in a real browser: reading, sorting, filtering and hovering work offline and on every screen."""

import io
import shutil
from contextlib import contextmanager

import fake_sweeps
import PIL.Image
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
        pytest.skip("no browser is installed: install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Write a sweep whose page has every kind of content, and names that contain HTML."""
    results = tmp_path_factory.mktemp("results")
    directory = fake_sweeps.write_sweep(
        results,
        data=fake_sweeps.data_facts(f"digits {HOSTILE}"),
        measures=("accuracy", "parameter_norm"),
        snapshots=(0, 10),
        unfitted=(0,),
        failed=(3,),
        diverged=(7,),
        error=HOSTILE,
        overrides=["experiment=example", "x=" + "y" * 300],
    )
    report.report(directory)
    return directory


@contextmanager
def opened(browser, path, width=1280, **options):
    """Open a page from disk; fail if it writes to the console or requests anything else."""
    context = browser.new_context(viewport={"width": width, "height": 800}, **options)
    page = context.new_page()
    messages, requests = [], []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    yield page
    context.close()
    assert messages == []
    assert requests == [path.as_uri()]


def column(page, table: str, title: str) -> list[str]:
    titles = [heading.strip() for heading in page.locator(f"#{table} thead th").all_text_contents()]
    return page.locator(f"#{table} tbody tr:visible td:nth-child({titles.index(title) + 1})").all_text_contents()


def draw_all(page) -> int:
    """Scroll every figure into view; return the number of figures that were drawn."""
    figures = page.locator(".plot")
    for number in range(figures.count()):
        figures.nth(number).scroll_into_view_if_needed()
        figures.nth(number).locator(".main-svg").first.wait_for(state="attached")
    return page.locator(".plot:has(.main-svg)").count()


def test_a_heading_sorts_the_table_by_click_and_by_keyboard(browser, sweep):
    with opened(browser, sweep / "report.html") as page:
        heading = page.locator("#runs th", has_text="learning rate")
        assert heading.get_attribute("aria-sort") == "none"
        before = column(page, "runs", "learning rate")
        heading.get_by_role("button").click()
        ascending = column(page, "runs", "learning rate")
        assert ascending != before
        assert ascending == sorted(before, key=float)
        assert heading.get_attribute("aria-sort") == "ascending"
        heading.get_by_role("button").focus()
        page.keyboard.press("Enter")
        assert column(page, "runs", "learning rate") == sorted(before, key=float, reverse=True)
        assert heading.get_attribute("aria-sort") == "descending"
        # Missing values are last in both orders.
        for _ in range(2):
            page.locator("#runs th", has_text="test accuracy").get_by_role("button").click()
            assert column(page, "runs", "test accuracy (%)")[-2:] == ["–", "–"]
        assert heading.get_attribute("aria-sort") == "none"


def test_a_filter_keeps_the_rows_that_contain_all_words(browser, sweep):
    with opened(browser, sweep / "report.html") as page:
        rows = page.locator("#runs tbody tr:visible")
        all_rows = rows.count()
        assert all_rows == 12
        page.get_by_label("Filter").fill("diverged")
        assert column(page, "runs", "status") == ["diverged"]
        page.get_by_label("Filter").fill("learning_rate=0.1 finished")
        assert set(column(page, "runs", "learning rate")) == {"0.1"}
        assert rows.count() == 2
        assert "2 of 12 rows" in page.locator("output").text_content()
        page.get_by_label("Filter").fill("no such thing")
        assert rows.count() == 0
        page.get_by_label("Filter").fill("")
        assert rows.count() == all_rows


def test_a_long_table_shows_only_its_first_rows(browser, tmp_path):
    """Sorting and filtering apply to all rows. Without scripts and in print, all rows are shown."""
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


def test_hovering_over_a_dot_shows_its_run_or_configuration(browser, sweep):
    with opened(browser, sweep / "report.html") as page:
        plot = page.locator(".plot").first
        plot.scroll_into_view_if_needed()
        plot.locator(".main-svg").first.wait_for(state="attached")
        texts, label = [], plot.locator(".hoverlayer .hovertext")
        dots = plot.locator(".scatterlayer .points path").all()
        assert len(dots) == 10 + 6  # finished runs, and configurations
        for dot in dots[::3]:
            box = dot.bounding_box()
            page.mouse.move(0, 0)
            label.wait_for(state="detached")
            page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            label.wait_for()
            texts.append(" ".join(label.text_content().split()))
        # The dots of runs come first, then those of configurations, most of which average two runs.
        assert all(word in texts[0] for word in ("learning rate 0.1", "batch size 32", "seed 0", "run "))
        assert any("2 runs" in text and " ± " in text for text in texts)
        assert all("region count (line)" in text for text in texts)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_page_is_readable_on_a_phone_in_dark_mode_and_in_print(browser, sweep, width, scheme):
    with opened(browser, sweep / "report.html", width, color_scheme=scheme) as page:
        assert draw_all(page) == 11
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        picture = _picture(page, full_page=True)
        assert picture.width == width
        assert picture.height > 3000
        assert len(picture.getcolors(picture.width * picture.height)) > 100
        _check_text_colour(page)
        light = picture.getpixel((2, 2))
        page.emulate_media(color_scheme="dark" if scheme == "light" else "light")
        _check_text_colour(page)
        dark = _picture(page).getpixel((2, 2))
        if scheme == "dark":
            light, dark = dark, light
        assert min(light) > 240
        assert max(dark) < 60
        page.emulate_media(media="print")
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert not page.locator("nav, .filter").filter(visible=True).count()
        assert min(_picture(page).getpixel((2, 2))) > 240
        _check_text_colour(page)


def _picture(page, **options) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(page.screenshot(**options))).convert("RGB")


def _check_text_colour(page) -> None:
    """Check that figures have the text colour of the page, or adopt it soon."""
    from playwright.sync_api import expect

    expect(page.locator(".plot .xtitle").first).to_have_css("fill", page.evaluate("getComputedStyle(document.body).color"))


def test_html_in_names_is_shown_as_text_in_the_browser(browser, sweep):
    for path in (sweep / "report.html", sweep.parent / "index.html"):
        with opened(browser, path) as page:
            assert "pwned" not in page.title()
            assert page.locator("img[src=x]").count() == 0
            assert page.get_by_text(HOSTILE).count() > 0


def test_all_controls_are_reachable_by_keyboard(browser, sweep):
    with opened(browser, sweep / "report.html") as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        # Scrollable boxes can be scrolled by keyboard and are labelled.
        for box in page.locator(".scroll, .wide").all():
            assert box.get_attribute("tabindex") == "0"
        unnamed = [node for node in page.get_by_role("region").all() if not node.get_attribute("aria-labelledby")]
        assert all(node.get_attribute("aria-label") for node in unnamed)
        assert page.get_by_role("heading", level=1).count() == 1


def test_the_index_links_to_the_report(browser, sweep):
    with opened(browser, sweep.parent / "index.html", 390) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.get_by_role("link", name="example").get_attribute("href") == f"{sweep.name}/report.html"
