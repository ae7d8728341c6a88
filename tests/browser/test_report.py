"""The report of a real study in a real browser."""

from __future__ import annotations

import pytest

from clrsearch import service

PHONE = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def report(study):
    """The address of the study's page, and the code on it."""
    file = study.folder / "report.html"
    service.report("small", file, storage=study.url)
    return file.as_uri(), service.best("small", storage=study.url).code


def test_it_shows_verdict_curves_parameters_and_trials(report, open_page) -> None:
    page = open_page(report[0])
    assert page.title() == "small: clrsearch"
    headings = page.locator("h2").all_inner_texts()
    assert headings == [
        *("Verdict", "The schedule as code", "Curves", "On fresh seeds", "Parameters"),
        *("Range test", "Trials", "How to reproduce"),
    ]
    assert page.locator(".sortable tbody tr").count() == 30
    assert "on 3 fresh seeds" in page.locator(".verdict").inner_text()
    titles = page.locator("figcaption strong").all_inner_texts()
    assert {
        *("Learning-rate schedule", "Learning curves of all trials", "Best so far against time"),
        *("Best so far against trials", "Scores on fresh seeds", "Learning-rate range test"),
    } <= set(titles)
    for path in page.locator("figure path").all():
        assert "nan" not in (path.get_attribute("d") or "").lower()


def test_a_button_copies_the_code(report, open_page) -> None:
    page = open_page(report[0], permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy the code").click()
    page.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == report[1]


def test_the_code_is_copied_without_the_clipboard_of_safe_pages(report, open_page) -> None:
    page = open_page(report[0])
    page.evaluate(
        """() => {
          Object.defineProperty(navigator, "clipboard", {value: undefined});
          document.addEventListener("copy", () => { window.copied = getSelection().toString(); });
        }"""
    )
    page.get_by_role("button", name="Copy the code").click()
    page.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("window.copied").strip() == report[1].strip()


def test_the_trials_are_sorted_by_any_column(report, open_page) -> None:
    page = open_page(report[0])
    header = page.locator(".sortable th").nth(3)

    def column(index: int) -> list[str]:
        return page.locator(f".sortable tbody td:nth-child({index})").all_inner_texts()

    header.get_by_role("button").click()
    assert header.get_attribute("aria-sort") == "ascending"
    scores = [float(text) for text in column(4) if text]
    assert scores == sorted(scores)
    header.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "descending"
    scores = [float(text) for text in column(4) if text]
    assert scores == sorted(scores, reverse=True)
    page.locator(".sortable th").nth(2).get_by_role("button").click()
    assert header.get_attribute("aria-sort") is None
    assert column(3) == sorted(column(3))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_by_day_and_by_night(report, open_page, scheme) -> None:
    page = open_page(report[0], color_scheme=scheme)
    contrasts = page.evaluate(
        """() => {
          const rgb = (text) => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
          const linear = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
          const light = (c) => { const [r, g, b] = c.map(linear);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
          const ground = light(rgb(getComputedStyle(document.body).backgroundColor));
          const contrast = (colour) => { const other = light(rgb(colour));
            return (Math.max(ground, other) + 0.05) / (Math.min(ground, other) + 0.05); };
          const texts = [...document.querySelectorAll("p, dt, dd, td, th, summary, li, pre")]
            .map((each) => contrast(getComputedStyle(each).color));
          const drawn = [...document.querySelectorAll("svg text")]
            .map((each) => contrast(getComputedStyle(each).fill));
          const lines = [...document.querySelectorAll(".curve")]
            .map((each) => contrast(getComputedStyle(each).stroke));
          return [Math.min(...texts), Math.min(...drawn), Math.min(...lines)];
        }"""
    )
    assert contrasts[0] >= 4.5  # WCAG 2.2, 1.4.3
    assert contrasts[1] >= 4.5
    assert contrasts[2] >= 3  # 1.4.11
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 24, 28)")


def test_a_phone_scrolls_in_one_direction(report, open_page) -> None:
    page = open_page(report[0], viewport=PHONE, device_scale_factor=2, has_touch=True)
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    heights = page.evaluate(
        "[...document.querySelectorAll('figure svg .tick')].map("
        "(each) => each.getBoundingClientRect().height)"
    )
    assert min(heights) >= 11  # of a line, in pixels
    for button in page.get_by_role("button").all():
        assert button.bounding_box()["height"] >= 24  # WCAG 2.2, 2.5.8


def test_everything_is_named_for_those_who_do_not_see_it(report, open_page) -> None:
    page = open_page(report[0])
    for picture in page.locator("figure svg[role=img]").all():
        assert picture.get_attribute("aria-label")
    assert page.locator("html").get_attribute("lang") == "en"
    for level in ("header", "main", "h1"):
        assert page.locator(level).count() == 1
    unnamed = page.evaluate(
        "[...document.querySelectorAll('section')].filter((each) => !document.getElementById("
        "each.getAttribute('aria-labelledby'))).length"
    )
    assert unnamed == 0
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Copy the code"
