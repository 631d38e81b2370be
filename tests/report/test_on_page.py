"""`filter --explain` tells where the report shows a trace, or that it does not."""

import pytest

from distill.report.on_page import address_of, traces_on
from distill.runs.explain import explain, story


def test_a_trace_on_the_page_has_its_address_there(make_sums_run):
    folder = make_sums_run().folder
    found = explain(folder, "generate", "p003x004/2")
    assert found["num_in_report"] == 96
    address = f"{folder}/report.html#trace=p003x004%2F2"
    assert found["traces"][2]["address"] == address
    assert f"  in the report: {address}" in story(found)


def test_a_trace_that_the_page_leaves_out_is_said_to_be_left_out(make_sums_run):
    folder = make_sums_run().folder
    page = folder / "report.html"
    page.write_text(page.read_text().replace('"sample":2', '"sample":7'))
    lines = story(explain(folder, "generate", "p003x004/2"))
    assert "  not in the report, which shows 96 traces" in lines


@pytest.mark.parametrize(
    "content", [None, "", "<p>mine</p>", '<script type="application/json" id="payload">{</script>']
)
def test_without_a_page_of_ours_nothing_is_said(make_sums_run, content):
    folder = make_sums_run().folder
    page = folder / "report.html"
    page.unlink() if content is None else page.write_text(content)
    found = explain(folder, "generate", "p003x004/2")
    assert (found["num_in_report"], found["traces"][2]["address"]) == (None, None)
    assert not any("report" in line for line in story(found))


def test_identities_of_any_letters_are_found_again(tmp_path):
    assert traces_on(tmp_path / "none.html") is None
    assert address_of(tmp_path, ("a/b c&é", 3)).endswith("#trace=a%2Fb%20c%26%C3%A9%2F3")
