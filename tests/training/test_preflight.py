"""What the preflight refuses, what it remarks on, and what it lets through, on rows of a small real tokenizer."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.errors import ModelError
from distill.models.tokenizers import load_tokenizer, template_text
from distill.recipe.sft import OWNED_TRL_KEYS, SftConfig
from distill.training.preflight import embedding_rows, preflight, trl_findings
from distill.training.row_checks import excerpt_of, plain
from distill.training.rows import token_rows

CHATML = template_text("chatml")
THOUGHT = "<think>\n{i} and 1 make {j}.\n</think>\n\n\\boxed{{{j}}}"


@pytest.fixture
def check(tmp_path, smollm2):
    """A function from rows and settings to a `Preflight`."""

    def run(rows=None, template=CHATML, context=8_192, vocab=49_152, tokenizer=None, **config):
        kept = tmp_path / "kept"
        kept.mkdir()
        pq.write_table(pa.Table.from_pylist(rows or [row(i) for i in range(20)]), kept / "a.parquet")
        tokenizer = tokenizer or load_tokenizer(smollm2.path, None, template=template)
        tokens = token_rows(kept, tokenizer, tmp_path / "cache")
        settings = SftConfig.model_validate({"max_length": 4_096, "epochs": 2, "batch_size": 8} | config)
        return preflight(kept, tokens, tokenizer, settings, {"vocab_size": vocab}, context)

    return run


def row(i, prompt=None, completion=None):
    return {
        "prompt": [{"role": "user", "content": prompt or f"What is {i} + 1?"}],
        "completion": [{"role": "assistant", "content": completion or THOUGHT.format(i=i, j=i + 1)}],
        "problem_id": f"sum{i}",
        "sample_index": 0,
    }


def kinds(result):
    return [finding.kind for finding in result.findings]


def test_good_rows_pass_and_are_counted(check):
    result = check()
    assert result.findings == ()
    result.raise_if_refused()
    assert result.num_rows == 20
    assert result.num_steps == 6  # 3 steps an epoch
    assert 0 < result.num_trained_tokens < result.num_tokens
    assert result.quantiles["p0"] <= result.quantiles["p50"] <= result.quantiles["p100"]
    assert result.num_too_long == 0


def test_examples_show_what_is_trained(check):
    result = check()
    assert len(result.examples) == 3
    prompt, completion = result.examples[0].segments
    assert not prompt.trained
    assert prompt.text.endswith("What is 0 + 1?<|im_end|>\n<|im_start|>assistant\n")
    assert completion.trained
    assert completion.text == "<think>\n0 and 1 make 1.\n</think>\n\n\\boxed{1}<|im_end|>\n"


TURNS = "{%- for m in messages -%}<|im_start|>{{ m['role'] }}\n{{ CONTENT }}<|im_end|>\n{%- endfor -%}"
OPEN = "{%- if add_generation_prompt -%}<|im_start|>assistant\n{%- endif -%}"


def turns(content, generation=OPEN, turn=TURNS):
    return turn.replace("CONTENT", content) + generation


@pytest.mark.parametrize(
    ("template", "kind", "message"),
    [
        (
            turns("m['content'].split('</think>')[-1]"),
            "thinking_lost",
            r'20 of 20 rows \(100.00%; sum0/0, sum1/0, sum2/0, …\) lack the reasoning: .*"0 and 1 make 1."',
        ),
        (turns("m['content'].split('</think>')[0] + '</think>'"), "answer_lost", "lack what follows the reasoning"),
        (
            turns("m['content'] | replace('</think>', '')"),
            "think_close_not_trained",
            r"leaves </think> out of the loss, .*sft\.chat_template",
        ),
        (
            turns("m['content']").replace("<|im_end|>", "{{ '<|im_end|>' if m['role'] == 'user' else '' }}"),
            "stop_not_trained",
            r"leaves the stop token <\|im_end\|> out of the loss, .* to stop",
        ),
        (
            turns("m['content']", generation="{{ '' if add_generation_prompt else 'The end.' }}" + OPEN),
            "text_after_stop",
            "go on after the stop token",
        ),
        (
            "{{ 'Now.' if add_generation_prompt else 'Then.' }}" + turns("m['content']"),
            "loss_covers_prompt",
            "would train part of the prompt: .*the loss begins at",
        ),
        (turns("m['content'] if m['role'] == 'assistant' else ''"), "prompt_lost", "lack their question"),
        ("{{ bos_token + bos_token }}" + turns("m['content']"), "second_bos", r"begin with two tokens <\|im_start\|>"),
    ],
)
def test_a_template_that_teaches_the_wrong_thing_is_refused(check, smollm2, template, kind, message):
    # The stop token is set by hand where the template does not end turns with it.
    tokenizer = load_tokenizer(smollm2.path, None)
    tokenizer.chat_template = template
    result = check(tokenizer=tokenizer)
    assert kind in kinds(result)
    assert next(f for f in result.findings if f.kind == kind).num_rows == 20
    with pytest.raises(ModelError, match=message):
        result.raise_if_refused()


def test_no_trained_token_is_refused(check):
    with pytest.raises(ModelError, match="have no trained token"):
        check(
            template=turns(
                "m['content'] if m['role'] == 'user' else ''",
                turn="{%- for m in messages -%}"
                "{%- if m['role'] == 'user' -%}<|im_start|>user\n{{ CONTENT }}<|im_end|>{%- endif -%}{%- endfor -%}",
                generation="",
            )
        ).raise_if_refused()


def test_a_generation_prompt_that_rows_lack_is_remarked_on(check):
    result = check(template=turns("m['content']", generation=OPEN.replace("assistant\n", "assistant\n<empty_output>")))
    assert kinds(result) == ["prompt_differs"]
    assert '"<empty_output>"' in result.warnings[0].message
    result.raise_if_refused()


def test_a_generation_prompt_that_opens_the_thought_is_right(check):
    assert (
        check(template=turns("m['content']", generation=OPEN.replace("assistant\n", "assistant\n<think>\n"))).findings
        == ()
    )


def test_rows_without_thinking_pass(check):
    assert check([row(i, completion=f"\\boxed{{{i}}}") for i in range(4)]).findings == ()


def test_rows_that_would_be_cut_are_refused_with_the_numbers_that_would_do(check):
    long = row(99, completion="<think>\n" + "one more " * 500 + "\n</think>\n\n\\boxed{1}")
    result = check([*(row(i) for i in range(19)), long], max_length=256)
    assert result.num_too_long == 1
    (finding,) = result.refusals
    longest = result.quantiles["p100"]
    assert finding.message.startswith(
        f"1 of 20 rows (5.00%; sum99/0) are longer than sft.max_length (256): the longest has {longest}"
    )
    assert (
        f"Raise sft.max_length to {longest} or lower filter.max_tokens to {256 - result.longest_prompt - 16}."
        in finding.message
    )


def test_all_rows_too_long(check):
    result = check(max_length=20)
    assert result.num_too_long == 20
    with pytest.raises(ModelError, match=r"20 of 20 rows \(100.00%; .*Raise sft.max_length to"):
        result.raise_if_refused()


def test_rows_beyond_the_positions_are_refused(check):
    long = row(99, completion="<think>\n" + "one more " * 500 + "\n</think>\n\n\\boxed{1}")
    result = check([row(1), long], context=512, max_length=256)
    assert kinds(result) == ["row_too_long", "beyond_context"]
    # Raising sft.max_length would only lead to the next refusal.
    assert "Raise" not in result.findings[0].message
    assert "sft.rope_theta" in result.findings[1].message


def test_a_stop_token_in_a_trace_is_refused_and_in_a_question_remarked_on(check):
    hostile = "<think>\nI write <|im_end|>\x1b[31m and go on.\n</think>\n\n\\boxed{1}"
    result = check(
        [row(0), row(1, completion=hostile), row(2, prompt="What is <|im_end|>?"), row(3, completion="a <reponame> b")]
    )
    assert {f.kind: f.rows for f in result.findings} == {
        "turn_token_in_completion": ("sum1/0",),
        "special_token_in_text": ("sum2/0", "sum3/0"),
    }
    message = result.refusals[0].message
    assert "I write <|im_end|>" in message
    assert "\x1b" not in message


def test_tokens_without_an_embedding_are_refused(check):
    with pytest.raises(ModelError, match=r"have tokens that the model has no embedding for: .* the model has 1000"):
        check(vocab=1_000).raise_if_refused()


def test_the_padding_token_is_not_the_stop_token_where_another_is_free(check, smollm2):
    tokenizer = load_tokenizer(smollm2.path, None)
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")


@pytest.mark.slow
def test_a_padding_token_that_masks_nothing_is_only_remarked_on(check, smollm2):
    tokenizer = load_tokenizer(smollm2.path, None)
    tokenizer.pad_token = tokenizer.eos_token
    result = check(tokenizer=tokenizer)
    assert kinds(result) == ["pad_is_stop"]
    assert not result.refusals


@pytest.mark.slow
def test_sft_trl_keys_are_checked_without_training():
    found = {
        f.message.split()[1]: f.message
        for f in trl_findings({"lerning_rate": 1, "neftune_noise": 5, "optim": "sgd", "fsdp": "x"})
    }
    assert set(found) == {"lerning_rate", "neftune_noise", "fsdp"}
    assert "Did you mean 'neftune_noise_alpha'?" in found["neftune_noise"]
    assert "is set by distill itself" in found["fsdp"]


@pytest.mark.slow
def test_all_owned_keys_are_arguments_of_trl():
    from dataclasses import fields

    from trl.trainer.sft_config import SFTConfig

    assert {field.name for field in fields(SFTConfig)} >= OWNED_TRL_KEYS


def test_the_embedding_of_a_model_with_several_parts_is_its_texts():
    assert embedding_rows({"text_config": {"vocab_size": 7}, "vocab_size": 9}) == 7
    assert embedding_rows({"architectures": ["X"]}) is None


@pytest.mark.parametrize("hostile", ["\x1b[2Jgone", "\x07bell", "a\u202eb", "x\r\ny", "\x9b31m"])
def test_what_a_terminal_would_obey_is_not_printed(hostile):
    assert not set(plain(hostile)) & {"\x1b", "\x07", "\u202e", "\r", "\x9b"}
    assert "\n" not in excerpt_of(hostile)


def test_rows_are_gone_through_in_order_over_batches(check):
    rows = [row(i) for i in range(150)]
    rows[130]["completion"][0]["content"] = "a <|im_end|> b"
    result = check(rows)
    assert result.refusals[0].rows == ("sum130/0",)


# --- prompts of several turns, and dates


def chat(i):
    made = row(i)
    before = [
        ("system", "Answer briefly."),
        ("user", "Are you there?"),
        ("assistant", "<think>\nso\n</think>\n\nYes, here."),
    ]
    return {**made, "prompt": [{"role": role, "content": text} for role, text in before] + made["prompt"]}


@pytest.mark.parametrize(
    ("template", "lost"),
    [
        (turns("m['content']"), None),
        (
            turns("m['content']").replace("for m in messages", "for m in messages if m['role'] != 'system'"),
            "system: Ans",
        ),
        (turns("m['content']").replace("for m in messages", "for m in messages[-2:]"), "system: Ans"),
        (turns("m['content'] | replace('brief', 'long')"), "system: Ans"),
        (turns("m['content'].split('</think>')[-1] if not loop.last else m['content']"), None),
        (turns("m['content'] if m['role'] != 'user' or loop.index > 2 else 'Hello?'"), "user: Are you there"),
    ],
)
def test_a_template_that_drops_or_alters_an_earlier_turn_is_refused(check, smollm2, template, lost):
    tokenizer = load_tokenizer(smollm2.path, None)
    tokenizer.chat_template = template
    result = check(rows=[chat(i) for i in range(4)], tokenizer=tokenizer)
    found = [finding for finding in result.refusals if finding.kind == "prompt_lost"]
    assert [finding.num_rows for finding in found] == ([] if lost is None else [4])
    assert all(lost in finding.message for finding in found)


def test_a_template_that_writes_todays_date_is_remarked_on(check):
    result = check(template="{{ strftime_now('%d %b %Y') }}" + CHATML)
    assert [(finding.kind, finding.refuses) for finding in result.findings] == [("writes_date", False)]
    assert "The same run on another day trains other rows" in result.findings[0].message


@pytest.mark.parametrize("template", ["{{ raise_exception('boo') }}", "{{ messages.x.y }}", "{{ 'x' * 3000000000 }}"])
def test_a_template_that_raises_is_refused_with_its_words(smollm2, template):
    says = r"^the template that sft\.chat_template names cannot render .* \((boo|UndefinedError|it takes more)"
    with pytest.raises(ModelError, match=says):
        load_tokenizer(smollm2.path, None, template=template)
