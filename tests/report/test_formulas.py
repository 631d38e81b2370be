"""Formulas and search in a real browser: drawn where they are harmless, raw where they are not, found by words."""

import json
import re

import pytest

from distill.report import gather_run, render_report
from distill.report.embed import FORMULA, asset, scripts, styles

DRAWN = {
    r"so $x^2 + 1$ it is": ["x^2 + 1"],
    r"\(\frac{a}{b}\) and \[\sum_{i=1}^{n} i\]": [r"\frac{a}{b}", r"\sum_{i=1}^{n} i"],
    "$$\\int_0^1 x\\,dx$$": [r"\int_0^1 x\,dx"],
    r"\begin{align*}a &= b\\ c &= d\end{align*}": [r"\begin{align*}a &= b\\ c &= d\end{align*}"],
    r"The answer is \boxed{\dfrac{1}{2}}.": [r"\boxed{\dfrac{1}{2}}"],
    r"$\text{if } x > 0$, else $50\%$": [r"\text{if } x > 0", r"50\%"],
    r"$字 + 1$": [r"字 + 1"],
}
PLAIN = [
    "it costs $5 and $10.",
    "$3-$4 each",
    "He has $5. She has 3$ more than that$",
    r"\$5 and \$6",
    r"a\\[2pt] b",
    r"\boxed{Yes it is}",
    "$ x $",
    "$one and two and three$",
    "$never closed",
    r"\( never closed",
    r"\begin{align} never closed",
    r"\boxed{never closed",
]
HOSTILE = [
    r"\href{javascript:document.title='run'}{x}",
    r"\url{http://evil.example/}",
    r"\includegraphics[width=9em]{http://evil.example/x.png}",
    r"\htmlData{onclick=f()}{x}",
    r"\htmlClass{bar}{x}",
    r"\htmlId{theme}{x}",
    r"\htmlStyle{position:fixed}{x}",
    r"\def\a{\a\a}\a",
    r"\newcommand{\b}{\b}\b",
    r"\let\x=\frac",
    r"\color{white} hidden",
    r"\textcolor{white}{hidden}",
    r"\colorbox{black}{hidden}",
    r"\phantom{hidden}",
    r"\llap{over what stands here}",
    r"\raisebox{99em}{x}",
    r"\kern-99em x",
    r"\hspace{-99em} x",
    r"\rule{99em}{99em}",
    r"\smash{x}",
    r"\char`\<",
    r"\unknown{x}",
    r"\frac{1}{",
    "{" * 1_500,
    r"\sqrt{" * 250 + "x" + "}" * 250,
    "x" * 3_000,
    "<img src=x onerror=\"document.title='run'\">^{<script>document.title='run'</script>}",
    r"\begin{array}{" + "c" * 900 + "}" + r"x\\[9em]" * 120 + r"\end{array}",
    "a" + r"\\[9em] a" * 200,
]


def formula_run(kit, runs, say):
    """A run of one problem, with a trace for each text."""
    maker = kit.RunMaker(kit.recipe_of("formulas"), runs)
    problem = kit.sum_problem(1, 2, question="What is ${a}+{b}$?")
    texts = [f"<think>\n{text}\n</think>\n\nIt is \\boxed{{3}}." for text in say]
    maker.generate([problem], [kit.trace_of(problem, k, text) for k, text in enumerate(texts)])
    maker.filter()
    maker.summarise()
    return (maker.folder / "report.html").as_uri(), problem.id


def settle(page):
    """Wait until all formulas that are in view are drawn or given up."""
    page.evaluate("() => new Promise(done => setTimeout(done, 150))")
    look = "const look = () => drawing.queue.length ? requestAnimationFrame(look) : done();"
    page.evaluate(f"() => new Promise(done => {{ {look} look(); }})")


def test_a_page_without_formulas_carries_no_katex_and_one_with_them_does():
    assert "katex" in scripts(with_formulas=True)
    assert asset("katex/katex.min.js") not in scripts(with_formulas=False)
    assert "KaTeX_Main" not in styles(with_formulas=False)
    assert FORMULA.search("The answer is \\boxed{3}")
    assert not FORMULA.search("It costs 5 dollars, or 3 $ more")


def test_what_comes_along_of_katex_loads_nothing_and_has_its_licence():
    assert re.findall(r"url\((?!data:font/woff2;base64,)", asset("katex/katex.css")) == []
    assert "MIT License" in asset("katex/LICENSE")
    script = asset("katex/katex.min.js")
    assert "</script" not in script
    assert len(scripts(with_formulas=True)) + len(styles(with_formulas=True)) < 700_000


@pytest.mark.slow
def test_formulas_are_told_from_money_and_prose(open_page, pages):
    page = open_page(pages["one"])
    find = "text => formulasIn(text).map(formula => formula.tex)"
    assert {text: page.evaluate(find, text) for text in DRAWN} == DRAWN
    assert {text: page.evaluate(find, text) for text in PLAIN} == {text: [] for text in PLAIN}


@pytest.mark.slow
def test_formulas_of_a_trace_are_drawn_and_raw_on_request(open_page, kit, tmp_path):
    address, name = formula_run(kit, tmp_path, [" then ".join(DRAWN)])
    page = open_page(f"{address}#trace={name}%2F0")
    page.locator(".reader .katex").first.wait_for(timeout=10_000)
    settle(page)
    assert page.locator(".reader .formula").count() == sum(map(len, DRAWN.values())) + 2
    assert page.locator(".reader .formula .katex").count() == page.locator(".reader .formula").count()
    assert page.locator(".reader .formula.display").count() == 3
    assert page.locator(".reader math mfrac").count() == 2  # for screen readers
    font = page.evaluate("() => document.fonts.check('16px KaTeX_Main')")
    assert font
    page.locator("#formulas").click()
    assert page.locator(".katex").count() == 0
    assert r"\(\frac{a}{b}\) and \[\sum_{i=1}^{n} i\]" in page.locator(".reader").inner_text()
    page.reload()
    settle(page)
    assert page.locator(".katex").count() == 0
    page.locator("#formulas").click()
    page.locator(".reader .katex").first.wait_for(timeout=10_000)


@pytest.mark.slow
def test_hostile_formulas_stay_as_they_were_written(open_page, kit, tmp_path):
    address, name = formula_run(kit, tmp_path, [f"${text}$ end" for text in HOSTILE])
    page = open_page(address)
    title = page.title()
    for k, text in enumerate(HOSTILE):
        page.goto(f"{address}#trace={name}%2F{k}")
        page.locator(".reader h3").filter(has_text=f"sample {k}").wait_for(timeout=5_000)
        settle(page)
        thinking = page.locator(".reader .text[aria-label=Thinking]")
        assert thinking.locator(".katex").count() == 0, text
        assert text[:100] in thinking.inner_text()
    assert page.title() == title
    assert page.locator("img, iframe, .reader a[href^=http], .reader [onclick]").count() == 0


@pytest.mark.slow
def test_no_formula_runs_loads_or_hangs_whatever_it_is(open_page, pages):
    """What KaTeX itself makes of hostile texts, should one of them get past the page's own list."""
    page = open_page(pages["one"])
    texts = json.dumps(HOSTILE)
    took = page.evaluate(
        f"""() => {texts}.map(tex => {{
            const begin = performance.now();
            const node = drawn({{ tex, isDisplay: true }});
            if (node) {{ document.body.append(node); }}
            return performance.now() - begin;
        }})"""
    )
    assert max(took) < 5_000
    assert page.locator("img, script[src], iframe, a[href^=javascript]").count() == 0


@pytest.mark.slow
@pytest.mark.parametrize("piece", ["\\[", "\\(", "$", "$a ", "$$", "\\boxed{", "\\begin{a}", "{", "\\", '"'])
def test_a_long_text_of_marks_alone_holds_nothing_up(open_page, pages, piece):
    page = open_page(pages["one"])
    took = page.evaluate(
        """piece => {
            const text = piece.repeat(100000 / piece.length);
            const begin = performance.now();
            passageNodes([text], searchTerms(piece + " x"));
            return performance.now() - begin;
        }""",
        piece,
    )
    assert took < 10_000


@pytest.mark.slow
def test_formulas_of_evaluation_answers_are_drawn(open_page, pages):
    page = open_page(pages["whole"])
    page.locator("#answer-browser .side .formula").first.scroll_into_view_if_needed()
    page.locator("#answer-browser .side .katex").first.wait_for(timeout=10_000)


@pytest.mark.slow
def test_a_search_takes_words_in_any_order_phrases_as_they_stand_and_folds_letters(open_page, kit, tmp_path):
    texts = [
        "The Straße is long;  the café\nis near.",
        "A long way to the strasse.",
        "Café near, near.",
        "Ich sehe x² und ΟΔΟΣ.",
    ]
    address, _ = formula_run(kit, tmp_path, texts)
    page = open_page(address)

    def samples(query):
        page.get_by_label("Search").fill(query)
        page.wait_for_url(re.compile("q="), timeout=5_000)
        page.evaluate("() => new Promise(done => setTimeout(done, 200))")
        return [
            int(index) for index in page.locator(".list .index").evaluate_all("all => all.map(e => e.lastChild.data)")
        ]

    assert samples("long STRASSE") == [0, 1]
    assert samples("strasse   long") == [0, 1]
    assert samples("cafe near") == [0, 2]
    assert samples("near CAFÉ") == [0, 2]
    assert samples('"cafe is near"') == [0]
    assert samples('"near cafe"') == []
    assert samples('long "to the"') == [1]
    assert samples("“to the”") == [1]
    assert samples('"long way') == [1]
    assert samples("x2 οδος") == [3]
    assert samples("long nowhere") == []
    assert samples("near") == [0, 2]
    page.goto(f"{address}#trace=p001x002%2F0&q=strasse%20%22cafe%20is%22%20near")
    page.locator(".reader mark.hit").first.wait_for(timeout=5_000)
    assert page.locator(".reader mark.hit").all_inner_texts() == ["Straße", "café\nis", "near"]


@pytest.mark.slow
def test_a_formula_in_which_something_was_found_stays_raw_and_marked(open_page, kit, tmp_path):
    address, name = formula_run(kit, tmp_path, [r"So $\sqrt{alpha}$ and $\sqrt{b}$."])
    page = open_page(f"{address}#trace={name}%2F0&q=alpha")
    page.locator(".reader .katex").first.wait_for(timeout=10_000)
    thinking = page.locator(".reader .text[aria-label=Thinking]")
    assert thinking.locator("mark.hit").all_inner_texts() == ["alpha"]
    assert r"$\sqrt{alpha}$" in thinking.inner_text()
    assert thinking.locator(".katex").count() == 1


@pytest.mark.slow
def test_a_page_of_formulas_stays_small(kit, tmp_path):
    formula_run(kit, tmp_path, [" then ".join(DRAWN)] * 4)
    html = render_report(gather_run(tmp_path / "formulas"))
    assert len(html.encode()) < 800_000
