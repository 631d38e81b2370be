"""Chat templates are programs of somebody else's: the texts are transformers' own, and no program does any harm."""

from pathlib import Path

import pytest

from distill.engines.base import EngineSpec, check_template
from distill.errors import ModelError
from distill.models import chat_templates as module
from distill.models.chat_templates import TemplateError, lost_message, render_all, writes_date
from distill.models.tokenizers import template_text
from distill.recipe.sampling import Sampling, SamplingCompute
from distill.training.rows import SourceRow, render_rows

TEMPLATES = Path(module.__file__).parent / "templates"
TURNS = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{{ eos_token }}{% endfor %}"
CHAT = [
    {"role": "system", "content": " Be brief & kind. "},
    {"role": "user", "content": "What is <2> + 'é'?\n"},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\n4"},
    {"role": "user", "content": "\ud7ff \u2028 ok"},
]
ROLES = ("system", "user", "assistant", "user")


@pytest.fixture
def tokenizer():
    """A function that makes a tokenizer with a chat template."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    def make(template):
        plain = Tokenizer(WordLevel({"<e>": 0, "<b>": 1, "?": 2}, unk_token="?"))
        made = PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<e>", bos_token="<b>", unk_token="?")
        made.chat_template = template
        return made

    return make


@pytest.mark.parametrize(
    "template",
    [
        (TEMPLATES / "chatml.jinja").read_text(),
        (TEMPLATES / "llama3.jinja").read_text(),
        TURNS,
        "{{ bos_token }}{% for m in messages %}{{ m | tojson }}{% if loop.last %}{% break %}{% endif %}{% endfor %}",
        "{% generation %}{{ messages[-1].content.strip() }}{% endgeneration %}{{ tools is none }}{{ documents }}",
        {"default": TURNS, "tool_use": "x"},
    ],
    ids=["chatml", "llama3", "turns", "tojson", "generation", "several"],
)
def test_texts_are_those_of_transformers(tokenizer, template):
    made = tokenizer(template)
    chats = [CHAT, CHAT[1:2], *([{"role": "user", "content": f"q{i}" * 400}] for i in range(150))]
    for goes_on in (True, False):
        theirs = [made.apply_chat_template(chat, tokenize=False, add_generation_prompt=goes_on) for chat in chats]
        assert render_all(made, chats, goes_on) == theirs


LOOPS = "".join(f"{{% for {name} in range(99999) %}}" for name in "abc") + "{% endfor %}" * 3


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{ raise_exception('no system turns, please') }}", r"\(no system turns, please\)"),
        ("{{ messages[0].nothing.there }}", "UndefinedError"),
        ("{{ nothing() }}", "UndefinedError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{% for i in range(10**9) %}{% endfor %}", "Range too big"),
        (LOOPS, "takes longer than"),
        ("{{ 9 ** (9 ** 9) }}", "takes longer than"),
        ("{{ 'x' * 3000000000 }}", "GiB of memory"),
        ("{{ 'a' | center(2000000000) }}", "GiB of memory"),
        ("{{ '{:>2000000000}'.format(1) }}", "GiB of memory"),
        ("{{ messages | batch(999999999, 'x') | list }}", "GiB of memory"),
        ("{{ 'x' * 50000000 }}", "writes more than"),
        ("{% include '/etc/passwd' %}", "no loader"),
        ("{% import 'os' as os %}", "no loader"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "RecursionError"),
        ("{{ cycler.__init__.__globals__.os.system('true') }}", "SecurityError"),
        ("{{ messages.append({}) }}", "SecurityError"),
        ("{{ 'x' ", "TemplateSyntaxError"),
        ("{% for m in messages %}", "TemplateSyntaxError"),
        ("{{ " + "(" * 5_000 + ")" * 5_000 + " }}", "Error"),
    ],
)
def test_a_template_that_fails_or_would_not_end_says_why(tokenizer, monkeypatch, template, why):
    monkeypatch.setattr(module, "TIMEOUT_S", 2.0)
    made = tokenizer(template)
    with pytest.raises(TemplateError, match=why) as caught:
        render_all(made, [CHAT, CHAT], False)
    assert caught.value.index == 0
    assert isinstance(caught.value, ModelError)
    assert len(str(caught.value)) < 400
    assert render_all(tokenizer(TURNS), [CHAT[1:2]], False) == ["[user]What is <2> + 'é'?\n<e>"]


def test_a_text_far_longer_than_its_messages_is_refused_before_it_is_tokenised(tokenizer):
    added = "{% if 'long' in messages[0].content %}{{ 'x' * 3000000 }}{% endif %}"
    rows = [[{"role": "user", "content": text}] for text in ("a short one", "a long one")]
    with pytest.raises(TemplateError, match=r"writes more than 1,048,656 characters") as caught:
        render_all(tokenizer("{{ messages[0].content }}" + added), rows, False)
    assert caught.value.index == 1
    (text,) = render_all(
        tokenizer("{{ messages[0].content }}"), [[{"role": "user", "content": "y" * 3_000_000}]], False
    )
    assert len(text) == 3_000_000


def test_the_row_that_fails_is_named(tokenizer, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT_S", 2.0)
    rows = [SourceRow(f"p{i}/0", [{"role": "user", "content": str(i)}], [CHAT[2]]) for i in range(200)]
    for broken in ("raise_exception('odd')", "'x' * 3000000000"):
        made = tokenizer("{% if messages[0].content == '131' %}{{ " + broken + " }}{% endif %}x")
        with pytest.raises(
            ModelError, match=r"row p131/0: the chat template cannot render it \(.*\); its roles are user"
        ):
            render_rows(made, rows, whole=True)


@pytest.mark.parametrize("said", [None, 3, {"failed": "x"}, ["a", 3], ["a"], {"texts": []}])
def test_an_answer_that_is_no_texts_is_refused(tokenizer, monkeypatch, said):
    monkeypatch.setattr(module._worker, "call", lambda *_: said)
    with pytest.raises(TemplateError, match="did not return texts"):
        render_all(tokenizer(TURNS), [CHAT, CHAT], False)


# --- what a template leaves out


@pytest.mark.parametrize(
    ("template", "place"),
    [
        (TURNS, None),
        ((TEMPLATES / "chatml.jinja").read_text(), None),
        (TURNS.replace("for m in messages", "for m in messages if m['role'] != 'system'"), 0),
        (TURNS.replace("for m in messages", "for m in messages[-1:]"), 0),
        (TURNS.replace("for m in messages", "for m in messages if m['role'] != 'assistant'"), 2),
        (TURNS.replace("m['content']", "m['content'] | lower"), 0),
        (TURNS.replace("m['content']", "m['content'] | e"), 0),
        (TURNS.replace("m['content']", "m['content'] | replace('7', '') | title"), 0),
        (TURNS.replace("m['content']", "m['content'][:5]"), 0),
        (TURNS.replace("m['content']", "m['content'] | trim"), None),
        ("{{ messages[0]['content'] }}{{ messages[-1]['content'] }}", 1),
        ("{{ messages | map(attribute='content') | join('\\n') }}", None),
    ],
)
def test_a_message_that_is_dropped_or_altered_is_found(tokenizer, template, place):
    assert lost_message(tokenizer(template), ROLES, True) == place


@pytest.mark.parametrize(
    ("template", "is_dated"),
    [
        (TURNS, False),
        ("{{ strftime_now('%d %b %Y') }}" + TURNS, True),
        ("{% set date_string = strftime_now('%Y') %}Today: {{ date_string }}" + TURNS, True),
        ("{% set d = strftime_now('%B') if strftime_now is defined else 'July' %}{{ d }}", True),
        ("{% set unused = strftime_now('%Y') %}" + TURNS, False),
        ("Cutting Knowledge Date: December 2023{# strftime_now #}" + TURNS, False),
    ],
)  # fmt: skip
def test_a_template_that_writes_the_date_is_found(tokenizer, template, is_dated):
    assert writes_date(tokenizer(template), ("user",)) is is_dated


def spec(*roles):
    return EngineSpec(
        model_path=Path(),
        model_name="org/teacher",
        sampling=Sampling(max_tokens=64),
        compute=SamplingCompute(),
        chat_format=None,
        longest_messages=[[{"role": role, "content": "x"} for role in roles]],
    )


def test_a_teacher_whose_template_drops_the_system_prompt_is_refused(tokenizer, capsys):
    drops = TURNS.replace("for m in messages", "for m in messages if m['role'] != 'system'")
    check_template(tokenizer(drops), spec("user"))
    with pytest.raises(ModelError, match=r"org/teacher: its chat template drops or alters the system message"):
        check_template(tokenizer(drops), spec("system", "user"))
    with pytest.raises(ModelError, match="no system turns"):
        check_template(tokenizer("{{ raise_exception('no system turns') }}"), spec("system", "user"))
    assert "today's date" not in capsys.readouterr().err
    check_template(tokenizer("{{ strftime_now('%Y') }}" + TURNS), spec("user"))
    assert "writes today's date" in capsys.readouterr().err


# --- files of templates


@pytest.mark.parametrize(
    ("content", "why"),
    [("{{ " + "(" * 20_000, "nested too deeply"), ("x" * 1_000_001, "larger than 1,000,000 bytes"), ("", "is empty")],
)
def test_a_file_that_is_no_template_is_refused(tmp_path, content, why):
    (tmp_path / "t.jinja").write_text(content)
    with pytest.raises(ModelError, match=why):
        template_text(f"file:{tmp_path / 't.jinja'}")
