"""Somebody clicks through the page in a real browser, from a file, on a desk and on a phone."""

import re

import pytest

from distill.report import gather_run, render_report

pytestmark = pytest.mark.slow

DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


def found(page, text):
    """Wait until the line above the list says so: the search waits until nobody types any more."""
    page.locator(".found").filter(has_text=re.compile(f"^{text}$")).wait_for(timeout=5_000)


def heading(page, text):
    """Wait until the trace that is open has such a heading: the page follows its address a moment later."""
    page.locator(".reader h3").filter(has_text=text).wait_for(timeout=5_000)


def colour_of_page(page):
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def test_search_and_filters_narrow_the_list_and_clear_widens_it(open_page, pages):
    page = open_page(pages["one"])
    found(page, "96 traces")
    page.get_by_label("Search").fill('"WHAT IS 3 + 4"')
    found(page, "4 of 96 traces")
    page.get_by_label("Grade").select_option("wrong")
    found(page, "2 of 96 traces")
    page.get_by_role("button", name="Clear").click()
    found(page, "96 traces")
    page.get_by_label("Outcome").select_option("mixed_language")
    found(page, "24 of 96 traces")
    page.locator("select[name=source]").select_option("file:odd.jsonl")
    found(page, "12 of 96 traces")
    page.get_by_role("button", name="Clear").click()
    page.get_by_label("Length, tokens, at least").fill("400")
    found(page, "24 of 96 traces")
    page.get_by_label("Search").fill("nothing that anybody wrote")
    found(page, "0 of 96 traces")
    assert "Nothing fits" in page.locator(".reader").inner_text()


def test_a_trace_has_its_address_and_back_leads_back(open_page, pages):
    page = open_page(pages["one"])
    page.locator(".list a").nth(1).click()
    heading(page, "sample 1")
    assert page.url.endswith("#trace=p003x004%2F1")
    page.locator(".list a").nth(3).click()
    heading(page, "sample 3")
    page.go_back()
    heading(page, "sample 1")
    shared = open_page(pages["one"] + "#trace=p020x038%2F2")
    assert "p020x038 · sample 2" in shared.locator(".reader h3").inner_text()
    assert shared.locator(".reader h3").is_visible()
    assert shared.locator(".list [aria-current]").count() == 1
    gone = open_page(pages["one"] + "#trace=%3Cimg%20src%3Dx%3E%2F9")
    assert "<img src=x>/9 is not on this page." in gone.locator(".reader").inner_text()


def test_thinking_collapses_marks_show_and_answers_stand_side_by_side(open_page, pages):
    page = open_page(pages["one"] + "#trace=p003x004%2F3")
    thinking = page.locator(".reader details.thinking")
    assert thinking.locator("mark.loop").inner_text().count("Let me look at that once more.") == 40
    thinking.locator("summary").click()
    assert thinking.get_attribute("open") is None
    page.keyboard.press("t")
    assert thinking.get_attribute("open") is not None
    foreign = open_page(pages["one"] + "#trace=p003x004%2F2")
    assert foreign.locator(".text mark.foreign").all_inner_texts() == ["和", "得到", "所以"]
    answers = foreign.locator(".reader .answers").inner_text().split("\n")
    assert answers == ["Expected answer", "7", "Extracted answer", "7"]


def test_the_keyboard_walks_through_what_is_found(open_page, pages):
    page = open_page(pages["one"])
    page.get_by_label("Outcome").select_option("kept")
    found(page, "24 of 96 traces")
    page.locator("body").click(position={"x": 5, "y": 5})
    for key, trace in (("j", "p004x006"), ("j", "p005x008"), ("k", "p004x006")):
        page.keyboard.press(key)
        heading(page, f"{trace} · sample 0")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.name") == "search"
    page.keyboard.type("jk")
    assert page.get_by_label("Search").input_value() == "jk"


def test_the_list_goes_page_by_page_and_a_reason_leads_from_the_funnel_to_its_traces(open_page, pages):
    page = open_page(pages["one"])
    assert page.locator(".list a").count() == 25
    page.get_by_role("button", name="Next →").click()
    assert page.locator(".pager span").inner_text() == "26 to 50 of 96"
    page.locator('.funnel a[href="#reason=wrong_answer"]').click()
    found(page, "24 of 96 traces")
    assert page.get_by_label("Outcome").input_value() == "wrong_answer"


def test_the_theme_follows_the_system_until_it_is_chosen(open_page, pages):
    page, dark = open_page(pages["one"]), open_page(pages["one"], colour="dark")
    light_colour, dark_colour = colour_of_page(page), colour_of_page(dark)
    assert light_colour != dark_colour
    page.locator("#theme").click()  # light, as it is
    page.locator("#theme").click()
    assert colour_of_page(page) == dark_colour
    page.reload()
    assert colour_of_page(page) == dark_colour
    page.locator("#theme").click()
    assert colour_of_page(page) == light_colour


@pytest.mark.parametrize("name", ["one", "two", "three"])
@pytest.mark.parametrize("colour", ["light", "dark"])
def test_a_phone_shows_all_of_it_without_scrolling_sideways(open_page, pages, name, colour):
    page = open_page(pages[name], PHONE, colour)
    widths = "[document.documentElement.scrollWidth, innerWidth]"
    wide, screen = page.evaluate(widths)
    assert wide <= screen
    assert not page.locator(".reader").is_visible()
    page.locator(".list a").first.click()
    page.locator(".reader").wait_for(state="visible")
    assert not page.locator(".list").is_visible()
    assert page.evaluate(widths)[0] <= screen
    for opened in page.locator("summary").all():
        if opened.is_visible():
            opened.click()
    assert page.evaluate(widths)[0] <= screen
    page.get_by_text("← All").click()
    page.locator(".list").wait_for(state="visible")


def test_two_runs_have_their_answers_next_to_each_other(open_page, pages):
    page = open_page(pages["two"])
    found(page, "44 questions")
    page.get_by_label("Answers").select_option("second")
    found(page, "5 of 44 questions")
    sides = page.locator(".reader .side").all_inner_texts()
    assert sides[0].startswith("a · 0 of 1 right")
    assert sides[1].startswith("b · 1 of 1 right")
    boxes = [side.bounding_box() for side in page.locator(".reader .side").all()]
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    assert boxes[0]["y"] == boxes[1]["y"]
    page.locator(".list a").nth(1).click()
    page.wait_for_url("**#problem=held-out%2F*")


def test_hostile_text_is_shown_and_never_run(open_page, kit, tmp_path):
    hostile = "</script><script>document.title='run'</script><img src=x onerror=\"document.title='run'\">\u202e\u2028"
    maker = kit.RunMaker(kit.recipe_of("hostile"), tmp_path)
    problem = kit.sum_problem(1, 2, question=hostile.replace("{", "{{").replace("}", "}}") + "{a}{b}")
    text = f"<think>\n{hostile}\n</think>\n\n{hostile}" + "x" * 500_000
    maker.generate([problem], [kit.trace_of(problem, 0, text)])
    maker.filter()
    maker.summarise()
    page = open_page((maker.folder / "report.html").as_uri() + "#trace=" + problem.id + "%2F0")
    assert page.title() == "hostile · distill report"
    shown = page.locator(".reader").inner_text()
    assert shown.count("<img src=x onerror=") == 3
    assert "characters left out" in shown
    page.get_by_label("Search").fill("<img")
    page.locator("mark.hit").first.wait_for(timeout=5_000)
    assert page.locator(".reader mark.hit").count() == 3
    assert page.title() == "hostile · distill report"


def test_a_large_run_is_searched_and_turned_at_once(open_page, kit, tmp_path):
    folder = kit.big_run(tmp_path, num_problems=3_000, num_chars=1_500)
    (folder / "report.html").write_text(render_report(gather_run(folder)))
    page = open_page((folder / "report.html").as_uri())
    found(page, "2,000 traces")
    assert page.locator(".list a").count() == 25
    page.get_by_label("Search").fill("q0000")
    found(page, r"\d+ of 2,000 traces")
