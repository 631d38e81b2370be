"""A run read from its files: finished, stopped, killed; which traces are shown, and what the filter saw in them."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from distill.errors import UserError
from distill.report import gather_run, render_report
from distill.report.pairs import MAX_ITEMS
from distill.storage.files import read_json
from distill.storage.ledger import Ledger


def shown(run):
    html = render_report(run)
    return json.loads(html.split('id="payload">')[1].split("</script>")[0])


def test_a_finished_run_is_read_whole(make_sums_run):
    maker = make_sums_run()
    run = gather_run(maker.folder)
    facts = run.facts
    assert (facts["state"], facts["stopped"], facts["begun"]) == ("complete", None, None)
    assert facts["stage_names"] == ["generate", "filter", "sft", "eval"]
    assert dict(facts["funnel"]) == {
        "sampled": 96,
        "truncated": 24,
        "wrong_answer": 24,
        "mixed_language": 24,
        "kept": 24,
    }
    assert len(run.cards) == run.num_traces == 96
    assert sum(facts["lengths"]["kept"]) == 24
    assert sum(facts["lengths"]["dropped"]) == 72
    assert sum(row["num_traces"] for row in facts["languages"].values()) == 96
    assert facts["lineage"]["generate"]["inputs"]["teacher_revision"] == "f48baf8b"
    difference = facts["stages"]["eval"]["difference"]
    scores = [[tally.score for tally in pair.tallies] for pair in run.answers.pairs]
    num_gained, num_lost = (sum(one < other for one, other in scores), sum(one > other for one, other in scores))
    assert (num_gained, num_lost) == (difference["num_gained"], difference["num_lost"])
    assert json.loads(json.dumps(facts)) == facts


def test_traces_have_their_verdict_and_what_the_filter_saw_is_marked(make_sums_run):
    payload = shown(gather_run(make_sums_run().folder))
    problems, by_reason = payload["problems"], {}
    for trace in payload["traces"]:
        by_reason.setdefault(trace["reasons"][0] if trace["reasons"] else "kept", []).append(trace)
        assert problems[trace["problem"]]["answer"]
    foreign = by_reason["mixed_language"][0]["thinking"]
    assert {part["text"] for part in foreign if isinstance(part, dict)} == {"和", "得到", "所以"}
    before, loop = by_reason["truncated"][0]["thinking"]
    assert before.startswith("Hm, ")
    assert loop["mark"] == "loop"
    assert loop["text"].count("Let me look at that once more.") == 40
    assert all(isinstance(part, str) for trace in by_reason["kept"] for part in trace["thinking"])
    wrong = by_reason["wrong_answer"][0]
    assert int(wrong["answer"]) == int(problems[wrong["problem"]]["answer"]) + 1


def test_an_answer_of_each_model_shows_the_difference(make_sums_run):
    found = gather_run(make_sums_run().folder).answers
    assert (found.names, found.num_all) == (["Base", "Student"], 20)
    for pair in found.pairs:
        base, student = (side[0] for side in pair.sides)
        assert (base.facts["correct"], student.facts["correct"]) == tuple(tally.score == 1 for tally in pair.tallies)
        for card in (base, student):
            assert (pair.problem["answer"] in card.text.parts[0][1]) is card.facts["correct"]
    differs = [pair.tallies[0].score != pair.tallies[1].score for pair in found.pairs]
    assert differs == sorted(differs, reverse=True)


def test_a_run_that_was_killed_while_sampling_is_read_from_its_ledger(kit, tmp_path):
    maker = kit.RunMaker(kit.recipe_of("killed"), tmp_path)
    problems = [kit.sum_problem(i, 1) for i in range(5)]
    maker.generate(
        problems, [kit.trace_of(p, 0, f"<think>\n{p.id}\n</think>\n\n7") for p in problems[:3]], is_complete=False
    )
    with (maker.folder / "generate" / "ledger.jsonl").open("a") as ledger:
        ledger.write('{"crc32": "00000000", "trace": {"problem')  # cut short by the kill
    assert not (maker.folder / "summary.json").exists()
    run = gather_run(maker.folder)
    assert run.facts["state"] == "unfinished"
    assert run.facts["begun"] == {"stage": "generate", "num_done": 3, "num_wanted": 20, "unit": "samples"}
    html = render_report(run)
    assert "3 of 20 samples are done and kept." in html
    assert "<strong>generate</strong>: begun, not complete." in html
    assert {trace["outcome"] for trace in shown(run)["traces"]} == {"unfiltered"}
    assert "The filter has not judged them yet." in html


def test_an_answer_to_a_retried_error_is_shown_instead_of_the_error(kit, tmp_path):
    maker = kit.RunMaker(kit.recipe_of("retried"), tmp_path)
    problems = [kit.sum_problem(3, i) for i in range(2)]
    failed = [replace(kit.trace_of(p, 0, "", "error"), error="busy") for p in problems]
    maker.generate(problems, failed)
    with Ledger(maker.folder / "generate" / "ledger.jsonl") as ledger:  # as a resumed generate leaves it when killed
        ledger.append([kit.trace_of(problems[0], 0, "<think>\nm\n</think>\n\n3")])
    finishes = {card.key[0]: card.facts["finish"] for card in gather_run(maker.folder).cards}
    assert finishes == {problems[0].id: "stop", problems[1].id: "error"}


def test_a_history_that_is_damaged_ends_at_the_damage(kit, tmp_path):
    maker = kit.RunMaker(kit.recipe_of("half"), tmp_path)
    (maker.folder / "sft").mkdir()
    (maker.folder / "sft" / "metrics.jsonl").write_bytes(b'{"step": 1, "loss": NaN}\n3\n\xff\n{"step": 4}\n')
    assert gather_run(maker.folder).facts["history"] == [{"step": 1, "loss": None}]


def test_a_run_that_was_killed_while_training_shows_the_steps_so_far(make_sums_run):
    folder = make_sums_run().folder
    (folder / "sft" / "manifest.json").unlink()
    shutil.rmtree(folder / "eval")
    lines = [json.dumps({"step": step, "loss": 2 / step}) for step in range(1, 8)]
    (folder / "sft" / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 8, "lo')
    run = gather_run(folder)
    assert (run.facts["state"], run.facts["begun"]["stage"]) == ("unfinished", "sft")
    assert [entry["step"] for entry in run.facts["history"]] == list(range(1, 8))
    html = render_report(run)
    assert "Training loss so far" in html
    assert "7 steps are done and kept." in html


def test_what_was_removed_to_save_space_is_not_missed(make_sums_run):
    folder = make_sums_run().folder
    for name in ("kept", "dropped", "verdicts.jsonl"):
        path = folder / "filter" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree(folder / "eval" / "base")
    (folder / "generate" / "problems.jsonl").unlink()
    run = gather_run(folder)
    assert (run.cards, run.facts["lengths"]) == ([], {})
    assert [[len(side) for side in pair.sides] for pair in run.answers.pairs] == [[0, 1]] * 20
    assert "No traces to show yet." in render_report(run)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="no run here"):
        gather_run(tmp_path)


def test_paths_and_secrets_of_this_machine_stay_here(make_sums_run, monkeypatch):
    monkeypatch.setenv("THE_SECRET", "open-sesame-42")
    maker = make_sums_run()
    summary = read_json(maker.folder / "summary.json")
    summary["stopped"] = {"stage": "push", "error": "/root/x/y.json: open-sesame-42", "at": "now"}
    (maker.folder / "summary.json").write_text(json.dumps(summary))
    run = gather_run(maker.folder)
    assert run.facts["stopped"]["error"] == "y.json: [redacted]"
    assert "open-sesame" not in render_report(run)
    assert str(maker.folder.parent) not in render_report(run)


@pytest.mark.long
@pytest.mark.slow
def test_a_large_evaluation_makes_a_small_page_with_what_differs_first(kit, tmp_path):
    maker = kit.RunMaker(kit.recipe_of("wide"), tmp_path)
    num = MAX_ITEMS + 500
    problems = [kit.sum_problem(i % 999, i // 999, question=f"Nr. {i}: " + "{a} + {b}") for i in range(num)]
    long = "<think>\n" + "so I add one more " * 1_000 + "\n</think>\n\n"
    base = [kit.trace_of(p, 0, f"{long}\\boxed{{no}}") for p in problems]
    student = [kit.trace_of(p, 0, f"{long}\\boxed{{{'no' if i % 4 else 'yes'}}}") for i, p in enumerate(problems)]
    maker.eval(problems, base, student, lambda trace: "yes" in trace.content)
    run = gather_run(maker.folder)
    assert (len(run.answers.pairs), run.answers.num_all) == (MAX_ITEMS, num)
    html = render_report(run)
    assert len(html.encode()) < 5_000_000
    pairs = shown(run)["answers"]["pairs"]
    assert f"{len(pairs):,} of {num:,} questions" in html
    gained = [pair["tallies"][1][0] > pair["tallies"][0][0] for pair in pairs]
    assert gained == sorted(gained, reverse=True)
    assert 200 < len(pairs) < num


@pytest.mark.long
@pytest.mark.slow
def test_a_hundred_thousand_traces_make_a_small_page_in_little_memory(kit, tmp_path):
    folder = kit.big_run(tmp_path)
    script = (
        "import sys; from pathlib import Path; from distill.report import gather_run, render_report\n"
        "html = render_report(gather_run(Path(sys.argv[1]))); Path(sys.argv[2]).write_text(html)\n"
        # Not ru_maxrss: a process begins with that of the one that started it.
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    command = [sys.executable, "-c", script, str(folder), str(tmp_path / "page.html")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2**20  # KiB; the texts alone are larger unpacked
    html = (tmp_path / "page.html").read_text()
    assert len(html.encode()) < 5_000_000
    payload = json.loads(html.split('id="payload">')[1].split("</script>")[0])
    seen = {(*trace["reasons"], payload["problems"][trace["problem"]]["source"]) for trace in payload["traces"]}
    sources = [f"hf:org/part-{number}" for number in range(5)]
    reasons = ["wrong_answer", "truncated", "loop", "mixed_language"]
    assert {*((reason, source) for reason in reasons for source in sources), *((source,) for source in sources)} <= seen
    assert sum(trace["reasons"] == ["judge_veto"] for trace in payload["traces"]) == 1
    assert f"{len(payload['traces']):,} of 100,000 traces. Every combination of outcome" in html
