"""The browser of evaluation answers in a real browser, alone and beside that of traces."""

import re

import pytest

pytestmark = pytest.mark.slow

ANSWERS, TRACES = "#answer-browser", "#browser"


def found(page, text, root=ANSWERS):
    page.locator(f"{root} .found").filter(has_text=re.compile(f"^{text}$")).wait_for(timeout=5_000)


def heading(page, text, root=ANSWERS):
    page.locator(f"{root} .reader h3").filter(has_text=text).wait_for(timeout=5_000)


def words_of(page):
    """What is said of each question in the list: gained, lost or nothing."""
    return page.locator(f"{ANSWERS} .list a").evaluate_all(
        "all => all.map(a => (a.querySelector('.turn') || { textContent: '' }).textContent)"
    )


def test_answers_to_a_question_stand_side_by_side_gained_first_then_lost(open_page, pages):
    page = open_page(pages["whole"])
    found(page, "20 questions")
    assert words_of(page) == ["gained"] * 11 + ["lost"] * 2 + [""] * 7
    sides = page.locator(f"{ANSWERS} .reader .side")
    assert [text.split("\n")[0] for text in sides.all_inner_texts()] == [
        "Base · 0 of 1 right",
        "Student · 1 of 1 right",
    ]
    boxes = [side.bounding_box() for side in sides.all()]
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    answers = page.get_by_role("search", name="Filter the questions")
    answers.get_by_label("Answers").select_option("first")
    found(page, "2 of 20 questions")
    assert answers.get_by_label("Answers").locator("option:checked").inner_text() == "lost: Base does better (2)"
    answers.get_by_role("button", name="Clear").click()
    answers.get_by_label("Search").fill("101 + 5")
    found(page, "1 of 20 questions")


def test_two_browsers_on_a_page_do_not_disturb_each_other(open_page, pages):
    page = open_page(pages["whole"])
    page.get_by_role("search", name="Filter the questions").get_by_label("Answers").select_option("second")
    found(page, "11 of 20 questions")
    page.get_by_label("Outcome").select_option("kept")
    found(page, "24 of 96 traces", TRACES)
    found(page, "11 of 20 questions")
    page.locator(f"{TRACES} .list a").nth(2).click()
    page.wait_for_url("**#trace=*")
    opened = page.locator(f"{TRACES} .reader h3").inner_text()
    page.locator(f"{ANSWERS} .list a").nth(1).click()
    page.wait_for_url("**#item=*")
    page.go_back()
    page.wait_for_url("**#trace=*")
    found(page, "24 of 96 traces", TRACES)
    found(page, "11 of 20 questions")
    assert page.locator(f"{TRACES} .reader h3").inner_text() == opened
    page.go_back()
    page.go_back()
    found(page, "96 traces", TRACES)
    found(page, "11 of 20 questions")
    page.go_back()
    found(page, "20 questions")


def test_keys_go_to_the_browser_on_the_screen(open_page, pages):
    page = open_page(pages["whole"])
    page.locator("h2#answers").click()
    first = page.locator(f"{TRACES} .reader h3").inner_text()
    names = page.locator(f"{ANSWERS} .list a").evaluate_all("all => all.map(a => decodeURIComponent(a.hash))")
    page.keyboard.press("j")
    heading(page, names[1].split("item=")[1].split("&")[0])
    assert page.locator(f"{TRACES} .reader h3").inner_text() == first
    page.evaluate("document.querySelector('h2#traces').scrollIntoView()")
    page.keyboard.press("j")
    page.wait_for_url("**#trace=*")
    heading(page, names[1].split("item=")[1].split("&")[0])


def test_a_view_of_answers_can_be_passed_on(open_page, pages):
    page = open_page(pages["three"])
    page.get_by_label("First model").select_option(label="org/two")
    page.locator("select[name=second]").select_option(label="org/three")
    page.get_by_label("Benchmark").select_option("gsm8k")
    found(page, "30 of 34 questions")
    page.locator(".list a").nth(2).click()
    page.wait_for_url("**#item=*")
    shown = page.locator(".reader h3").inner_text(), page.locator(".reader .side h4").all_inner_texts()
    again = open_page(page.url)
    heading(again, shown[0])
    assert again.locator(".reader .side h4").all_inner_texts() == shown[1]
    assert again.get_by_label("First model").locator("option:checked").inner_text() == "org/two"


def test_any_two_of_several_models_are_compared_or_all_are_shown(open_page, pages):
    page = open_page(pages["three"])
    found(page, "34 questions")
    sides = page.locator(".reader .side h4")
    assert [text.split(" · ")[0] for text in sides.all_inner_texts()] == ["org/one", "org/two"]
    assert page.get_by_label("First model").locator("option:checked").inner_text() == "org/one"
    assert page.locator("select[name=second]").locator("option:checked").inner_text() == "org/two"
    numbers = words_of(page)
    assert (numbers.count("gained"), numbers.count("lost")) == (22, 3)  # on the first page of 25
    page.locator("select[name=second]").select_option(label="org/three")
    page.get_by_label("First model").select_option(label="org/three")
    page.locator("select[name=second]").select_option(label="org/two")
    page.locator("select[name=which]").select_option("first")
    found(page, "17 of 34 questions")
    assert set(words_of(page)) == {"lost"}
    assert (
        page.locator("select[name=which]").locator("option:checked").inner_text() == "lost: org/three does better (17)"
    )
    page.locator("select[name=show]").select_option("all")
    page.locator(".reader .side").nth(2).wait_for(timeout=5_000)
    assert [text.split(" · ")[0] for text in sides.all_inner_texts()] == ["org/one", "org/two", "org/three"]
    page.get_by_role("button", name="Clear").click()
    found(page, "34 questions")
    assert sides.count() == 2


def test_of_a_benchmark_with_a_canary_only_ids_and_verdicts_are_shown(open_page, kit, tmp_path):
    maker = kit.RunMaker(kit.recipe_of("canary"), tmp_path)
    problems = kit.secret_problems("gpqa-diamond", 3)
    base, student = ([kit.answer_to(one, right) for one in problems] for right in (False, True))
    maker.eval({"gpqa-diamond": problems}, base, student, kit.is_right, canary=True)
    maker.summarise()
    page = open_page((maker.folder / "report.html").as_uri())
    found(page, "3 questions")
    assert "text not shown" in page.locator(".list a").first.inner_text()
    reader = page.locator(".reader").inner_text()
    assert "The authors ask that the texts of this benchmark are not spread" in reader
    assert "gpqa-diamond/00" in reader
    assert "Wrong" in reader
    assert "Right" in reader
    assert "SECRET" not in page.content()
    page.get_by_label("Search").fill("gpqa-diamond/001")
    found(page, "1 of 3 questions")
