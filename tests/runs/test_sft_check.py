"""`distill sft --check` from the command line: what it shows, what it refuses, and that it loads no weights."""

import json
import re
import shutil
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console

from distill.errors import ModelError, UserError
from distill.filters.funnel import Funnel
from distill.recipe.lineage import files_of
from distill.recipe.model import Recipe
from distill.runs.sft_check import check_sft, example_text, print_check
from distill.storage.run_folder import describe_outputs
from distill.training.preflight import Example, Segment

pytestmark = pytest.mark.slow

HOSTILE = "\x1b[2J\x1b]0;title\x07[bold red]markup[/]"


def kept_row(i, completion=None):
    return {
        "prompt": [{"role": "user", "content": f"What is {i} + 1?"}],
        "completion": [
            {"role": "assistant", "content": completion or f"<think>\n{i} and one.\n</think>\n\n\\boxed{{{i + 1}}}"}
        ],
        "problem_id": f"p{i}",
        "sample_index": 0,
    }


@pytest.fixture
def filtered(tmp_path, make_recipe):
    """A function that makes a recipe and a run folder whose filter is done with the rows that it is given."""

    def make(rows=None, num_kept=None, **sections):
        recipe = make_recipe(**sections)
        folder = tmp_path / "runs" / recipe.name / "filter"
        (folder / "kept").mkdir(parents=True)
        rows = [kept_row(i) for i in range(12)] if rows is None else rows
        pq.write_table(pa.Table.from_pylist(rows), folder / "kept" / "train-00000-of-00001.parquet")
        manifest = {
            "stage": "filter",
            "fingerprint": "f",
            "identity": {},
            "config": {},
            "recipe": recipe.model_dump(mode="json"),
            "files": files_of(recipe),
            "metrics": {
                **Funnel().metrics().to_json(),
                "num_kept": len(rows) if num_kept is None else num_kept,
                "num_traces": 20,
            },
            "outputs": describe_outputs(folder, {"kept": len(rows)}),
            "seconds": 1.0,
            "peak_memory_gib": 1.0,
            "finished_at": "2026-01-01T00:00:00+00:00",
        }
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return recipe

    return make


def shown(check, **console):
    printer = Console(width=80, record=True, file=open("/dev/null", "w"), **console)  # noqa: SIM115, PTH123
    print_check(check, printer)
    return printer.export_text(styles=bool(console))


def test_it_shows_rows_lengths_tokens_steps_layout_memory_and_time(tmp_path, filtered):
    check = check_sft(filtered(), tmp_path / "runs")
    text = shown(check)
    assert "trained tokens are between « and »" in text
    assert "«<think>\n0 and one.\n</think>\n\n\\boxed{1}<|im_end|>\n»" in text
    for line in ("rows     12", "steps    12: 2 epochs, 2 rows a step", "layout   1 process, each 2 rows x 1 pass"):
        assert line in text
    for fact in ("lengths  shortest", "too long 0 (0.00%)", "tokens   ", "memory   about 0.", "time     about 1 min"):
        assert fact in text
    # Nothing but the tokens, which training goes on from, is left.
    assert [path.name for path in (tmp_path / "runs" / "small" / "sft").iterdir()] == ["tokens"]


def test_trained_tokens_are_coloured_on_a_terminal_and_marked_without_colour():
    example = Example("p", 2, 1, (Segment("asked ", False), Segment("said", True)))
    assert [(span.start, span.end, span.style) for span in example_text(example, True).spans] == [
        (0, 6, "dim"),
        (6, 10, "green"),
    ]
    assert example_text(example, False).plain == "asked «said»"


def test_nothing_in_a_trace_is_obeyed_by_the_terminal(tmp_path, filtered):
    rows = [kept_row(i, f"<think>\n{HOSTILE}\n</think>\n\n\\boxed{{1}}") for i in range(3)]
    check = check_sft(filtered(rows), tmp_path / "runs")
    text = shown(check)
    assert "[bold red]markup[/]" in text
    assert not {"\x1b", "\x07"} & set(text)
    assert "\x1b" not in shown(check, force_terminal=True).replace("\x1b[32m", "").replace("\x1b[2m", "").replace(
        "\x1b[0m", ""
    )


def test_rows_that_would_be_cut_are_refused_by_both_ways_in(tmp_path, filtered):
    recipe = filtered(sft={"max_length": 40, "batch_size": 2})
    check = check_sft(recipe, tmp_path / "runs")
    assert check.to_json()["refused"]
    with pytest.raises(ModelError, match=r"12 of 12 rows \(100.00%; .*Raise sft.max_length to"):
        check.preflight.raise_if_refused()


def test_the_filter_has_to_be_done_first(tmp_path, make_recipe):
    with pytest.raises(UserError, match="Run `distill filter` first"):
        check_sft(make_recipe(), tmp_path / "runs")


def test_nothing_kept_is_told_as_training_would(tmp_path, filtered):
    with pytest.raises(UserError, match="the filter kept none of 20 traces"):
        check_sft(filtered(num_kept=0), tmp_path / "runs")


def test_it_loads_no_weights(tmp_path, filtered, tiny_llama):
    bare = tmp_path / "bare"
    shutil.copytree(tiny_llama, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    assert check_sft(filtered(student=str(bare)), tmp_path / "runs").preflight.num_rows == 12


def test_a_student_that_is_no_causal_language_model_is_refused(tmp_path, filtered, tiny_llama):
    encoder = tmp_path / "encoder"
    shutil.copytree(tiny_llama, encoder)
    config = json.loads((encoder / "config.json").read_text())
    (encoder / "config.json").write_text(json.dumps(config | {"architectures": ["BertForMaskedLM"]}))
    with pytest.raises(ModelError, match="BertForMaskedLM is not a causal language model"):
        check_sft(filtered(student=str(encoder)), tmp_path / "runs")


def test_a_gated_student_tells_how_to_get_access(tmp_path, filtered, monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError

    def refuse(name, **options):
        assert "*.safetensors" not in options["allow_patterns"]
        error = GatedRepoError.__new__(GatedRepoError)
        Exception.__init__(error, "403")
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(ModelError, match=r"is gated. Ask for access on https://huggingface.co/meta/x, then `hf auth"):
        check_sft(filtered(student="meta/x"), tmp_path / "runs")


def test_a_template_of_ones_own_is_checked_and_its_faults_are_told(tmp_path, filtered):
    template = tmp_path / "mine.jinja"
    recipe = filtered(sft={"max_length": 256, "batch_size": 2, "chat_template": f"file:{template}"})
    with pytest.raises(ModelError, match=r"mine.jinja: cannot be read"):
        check_sft(recipe, tmp_path / "runs")
    template.write_text("{% for m in messages %}{{ m.content }")
    with pytest.raises(ModelError, match=r"mine.jinja:1: not a Jinja template"):
        check_sft(recipe, tmp_path / "runs")
    template.write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    with pytest.raises(ModelError, match="no stop token: the chat template ends an assistant's turn with ''"):
        check_sft(recipe, tmp_path / "runs")
    template.write_text("{% for m in messages %}{{ m.content }}<|eot_id|>{% endfor %}")
    with pytest.raises(ModelError, match=r"turn with '<\|eot_id\|>' and the model's vocabulary has no special token"):
        check_sft(recipe, tmp_path / "runs")
    template.write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}<|endoftext|>{% endfor %}")
    check = check_sft(recipe, tmp_path / "runs")
    assert check.stop_token == "<|endoftext|>"
    assert check.pad_token != "<|endoftext|>"
    assert check.preflight.refusals == []


def run_cli(tmp_path, recipe, *options):
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe.model_dump(mode="json", exclude_unset=True)))
    command = [sys.executable, "-m", "distill", "sft", "--check", str(file), "--run-dir", str(tmp_path / "runs")]
    return subprocess.run([*command, *options], capture_output=True, text=True)


def test_exit_code_2_with_the_findings_and_the_report_all_the_same(tmp_path, filtered):
    recipe = filtered(sft={"max_length": 40, "batch_size": 2, "trl": {"lerning_rate": 1}})
    assert isinstance(recipe, Recipe)
    done = run_cli(tmp_path, recipe, "--json", "--quiet")
    assert done.returncode == 2
    report = json.loads(done.stdout)
    assert [finding["kind"] for finding in report["preflight"]["findings"]] == ["trl_key", "row_too_long"]
    assert "lerning_rate is not an argument of TRL's SFTConfig" in done.stderr
    assert "are longer than sft.max_length (40)" in done.stderr
    done = run_cli(tmp_path, recipe, "--set", "sft.trl={}", "--set", "sft.max_length=256")
    assert (done.returncode, "Rows as they will be trained" in done.stdout) == (0, True)


def test_two_rows_are_the_shortest_and_the_longest(tmp_path, filtered):
    text = shown(check_sft(filtered([kept_row(1), kept_row(22)]), tmp_path / "runs"))
    assert re.findall(r"\((shortest|median|longest):", text) == ["shortest", "longest"]
