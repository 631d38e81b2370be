"""The address of the page holds what is chosen and open, in a real browser: Back, links, no clutter."""

import re

import pytest

pytestmark = pytest.mark.slow

PHONE = {"width": 390, "height": 844}


def found(page, text):
    page.locator(".found").filter(has_text=re.compile(f"^{text}$")).wait_for(timeout=5_000)


def heading(page, text):
    page.locator(".reader h3").filter(has_text=text).wait_for(timeout=5_000)


def summary(page):
    """What is open, and how many there are beside it."""
    return page.locator(".reader h3").inner_text(), page.locator(".found").inner_text()


def fragment(page):
    return page.evaluate("location.hash")


def test_back_after_read_some_restores_the_list(open_page, pages):
    page = open_page(pages["one"])
    page.get_by_role("navigation", name="Sections").get_by_text("Funnel").click()
    page.locator('.funnel a[href="#reason=wrong_answer"]').click()
    found(page, "24 of 96 traces")
    page.go_back()
    found(page, "96 traces")
    assert fragment(page) == "#funnel"
    page.go_forward()
    found(page, "24 of 96 traces")
    page.go_back()
    page.go_back()
    found(page, "96 traces")
    assert fragment(page) == ""


def test_every_choice_is_in_the_address_and_leads_to_the_same_view(open_page, pages):
    page = open_page(pages["one"])
    page.get_by_label("Outcome").select_option("dropped")
    found(page, "72 of 96 traces")
    page.locator("select[name=source]").select_option("file:odd.jsonl")
    found(page, "36 of 96 traces")
    page.get_by_label("Grade").select_option("right")
    found(page, "12 of 96 traces")
    page.get_by_label("Length, tokens, at most").fill("400")
    page.get_by_label("Search").fill("和 add")
    page.wait_for_url(re.compile("q="), timeout=5_000)
    page.locator(".list a").nth(2).click()
    page.wait_for_url(re.compile("#trace="), timeout=5_000)
    shown = summary(page)
    names = [part.split("=")[0] for part in fragment(page)[1:].split("&")]
    assert names == ["trace", "q", "reason", "source", "grade", "length"]
    again = open_page(page.url)
    assert summary(again) == shown
    assert again.get_by_label("Search").input_value() == "和 add"
    assert again.get_by_label("Grade").input_value() == "right"
    again.reload()
    assert summary(again) == shown


def test_a_choice_is_one_step_back_typing_is_one_and_walking_is_none(open_page, pages):
    page = open_page(pages["one"])
    steps = page.evaluate("history.length")
    page.get_by_label("Outcome").select_option("dropped")
    found(page, "72 of 96 traces")
    page.get_by_label("Search").press_sequentially("carry where needed", delay=60)
    found(page, r"\d+ of 96 traces")
    page.wait_for_url(re.compile("needed"), timeout=5_000)
    page.locator("h2#traces").click()
    for key in "jjjjkk":
        page.keyboard.press(key)
    page.get_by_role("button", name="Clear").click()
    found(page, "96 traces")
    page.get_by_role("button", name="Next →").click()
    page.get_by_role("button", name="Next →").click()
    assert page.evaluate("history.length") == steps + 3
    page.go_back()
    assert page.get_by_label("Search").input_value() == "carry where needed"
    page.go_back()
    found(page, "72 of 96 traces")
    assert page.get_by_label("Search").input_value() == ""
    page.go_back()
    found(page, "96 traces")


def test_a_page_of_the_list_can_be_passed_on(open_page, pages):
    page = open_page(pages["one"])
    page.get_by_role("button", name="Next →").click()
    assert page.locator(".pager span").inner_text() == "26 to 50 of 96"
    again = open_page(page.url)
    assert again.locator(".pager span").inner_text() == "26 to 50 of 96"


@pytest.mark.parametrize(
    "given",
    [
        f"#{given}"
        for given in ("reason=no", "q=%E0%A4%A", "length=x-y", "page=999", "page=-3", "source=%3Cimg%3E", "q", "%")
    ],
)
def test_an_address_that_makes_no_sense_shows_the_page(open_page, pages, given):
    page = open_page(pages["one"] + given)
    assert page.locator(".found").inner_text().endswith("traces")
    assert page.locator(".bar").is_visible()


def test_a_trace_outside_the_filter_of_its_address_is_shown_all_the_same(open_page, pages):
    page = open_page(pages["one"] + "#trace=p003x004%2F0&reason=wrong_answer")
    heading(page, "p003x004 · sample 0")
    found(page, "24 of 96 traces")


def test_on_a_phone_all_traces_leads_back_to_what_was_found(open_page, pages):
    page = open_page(pages["one"], PHONE)
    page.get_by_label("Outcome").select_option("mixed_language")
    found(page, "24 of 96 traces")
    page.locator(".list a").nth(1).click()
    page.locator(".reader").wait_for(state="visible")
    page.get_by_text("← All").click()
    page.locator(".list").wait_for(state="visible")
    found(page, "24 of 96 traces")
    page.go_back()
    page.locator(".reader").wait_for(state="visible")
    page.go_back()
    page.locator(".list").wait_for(state="visible")
    assert page.get_by_label("Outcome").input_value() == "mixed_language"


def test_a_view_of_two_runs_can_be_passed_on_too(open_page, pages):
    page = open_page(pages["two"])
    page.get_by_label("Answers").select_option("second")
    found(page, "5 of 44 questions")
    before = page.url
    page.locator(".list a").nth(3).click()
    page.wait_for_url(lambda url: "#problem=" in url and url != before, timeout=5_000)
    shown = summary(page)
    assert shown[1] == "5 of 44 questions"
    assert summary(open_page(page.url)) == shown


def test_a_reason_leads_to_its_key_in_the_folded_recipe(open_page, pages):
    page = open_page(pages["one"] + "#trace=p003x004%2F2")
    page.locator(".reasons a").first.click()
    line = page.locator('[id="key-filter.readability.language"]')
    line.wait_for(state="visible", timeout=5_000)
    assert line.inner_text().strip() == "language: en"
    page.go_back()
    heading(page, "p003x004 · sample 2")
