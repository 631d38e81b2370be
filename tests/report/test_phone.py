"""The page on a phone and in other widths, in a real browser: nothing out of reach, nothing too small to touch."""

import pytest

pytestmark = pytest.mark.slow

PHONE = {"width": 390, "height": 844}
SMALLEST_PX = 44


def test_links_of_the_bar_that_do_not_fit_are_announced_and_reachable(open_page, pages):
    page = open_page(pages["one"], PHONE, has_touch=True)
    nav = page.locator(".bar nav")
    after, before = page.locator(".bar .more.after"), page.locator(".bar .more.before")
    assert after.is_visible()
    assert not before.is_visible()
    nav.evaluate("nav => { nav.scrollLeft = nav.scrollWidth }")
    before.wait_for(state="visible", timeout=5_000)
    after.wait_for(state="hidden", timeout=5_000)
    box, last = nav.bounding_box(), nav.locator("a").last.bounding_box()
    assert box["x"] <= last["x"]
    assert last["x"] + last["width"] <= box["x"] + box["width"] + 1


def test_where_all_links_fit_nothing_is_announced(open_page, pages):
    page = open_page(pages["one"])
    assert not page.locator(".bar .more.after").is_visible()
    assert not page.locator(".bar .more.before").is_visible()


def test_without_javascript_the_links_wrap(open_page, pages):
    page = open_page(pages["one"], PHONE, java_script_enabled=False)
    for link in page.locator(".bar nav a").all():
        box = link.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= PHONE["width"]


@pytest.mark.parametrize("name", ["one", "two", "three"])
def test_whatever_is_touched_is_large_enough(open_page, pages, name):
    page = open_page(pages[name], PHONE, has_touch=True)

    def check():
        seen = 0
        for target in page.locator("a, button, input, select, summary").all():
            # A link within a sentence is as high as its line.
            if not target.is_visible() or target.evaluate("e => e.matches('p a, .why a, .reasons a, .skip')"):
                continue
            height = target.bounding_box()["height"]
            assert height >= SMALLEST_PX - 0.5, target.evaluate("e => e.outerHTML.slice(0, 200)")
            seen += 1
        return seen

    assert check() > 30
    page.locator(".list a").first.click()
    page.locator(".reader").wait_for(state="visible")
    assert check() > 10


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
@pytest.mark.parametrize("name", ["one", "two", "three", "whole"])
def test_no_width_scrolls_sideways(open_page, pages, name, width):
    page = open_page(pages[name], {"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.locator(".list a").first.click()
    page.locator(".reader h3").first.wait_for(state="visible")
    for folded in page.locator("details:not([open]) > summary").all():
        if folded.is_visible():
            folded.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_kept_and_dropped_samples_differ_in_words_and_form(open_page, pages):
    page = open_page(pages["one"] + "#trace=p003x004%2F1")
    chips = page.locator(".siblings a")
    assert [chip.inner_text().split("\n") for chip in chips.all()] == [
        ["0", "✓", "Kept"],
        ["1", "✕", "wrong_answer"],
        ["2", "✓", "mixed_language"],
        ["3", "✕", "truncated"],
    ]
    style = "e => getComputedStyle(e).borderStyle"
    assert [chip.evaluate(style) for chip in chips.all()] == ["solid", "dashed", "dashed", "dashed"]
    assert [chip.get_attribute("aria-current") for chip in chips.all()] == [None, "true", None, None]
    assert chips.first.get_by_role("img", name="right").count() == 1


def test_the_list_tells_each_question_once(open_page, pages):
    page = open_page(pages["one"])
    groups = page.locator(".list > li")
    assert groups.count() == 7  # 25 traces of questions with four each
    assert groups.nth(0).locator(".ask").all_inner_texts() == ["What is 3 + 4?"]
    assert groups.nth(0).locator(".ids").inner_text() == "p003x004 · 4 samples, 1 kept"
    assert groups.nth(0).locator("a").count() == 4
    page.get_by_label("Grade").select_option("wrong")
    page.locator(".found").filter(has_text="of 96").wait_for(timeout=5_000)
    assert page.locator(".list > li").nth(0).locator("a").count() == 2


def test_paper_has_the_whole_report_but_the_browser(open_page, pages):
    page = open_page(pages["one"])
    page.emulate_media(media="print")
    assert not page.locator("#browser").is_visible()
    assert not page.locator(".bar").is_visible()
    assert page.locator("#lineage").is_visible()
