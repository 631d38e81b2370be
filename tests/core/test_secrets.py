"""Secrets in rows: found whatever stands around them, few false alarms, and never repeated."""

import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.core.redaction import redact
from distill.core.secrets import HERE, SecretFinder, hide_logins, secrets_in_text

# Drawn at random; none was ever valid. In two parts, so that no scanner takes this file for a leak.
KEYS = {
    "a Hugging Face token": "hf_" + "QwzTnVbKpLmRsXcYdFgHjEuAoiWvBzNtMq",
    "an API key (sk-…)": "sk-" + "proj-4fH9kQ2mZ7xW1vB8nR3tY6uP0aSd",
    "a GitHub token": "ghp_" + "9aK2mQ7xZ4vB1nR8tY3uP6wS0dFgHjLkEeCc",
    "a GitLab token": "glpat-" + "x7Kq2mZ9vB4nR1tY8uPw",
    "an AWS access key": "AKIA" + "Q3ZT7MXW5KVB2NRY",
    "a Google API key": "AIza" + "SyD9kQ2mZ7xW1vB8nR3tY6uP0aSdFgHjKlZ"[:35],
    "a Slack token": "xoxb-" + "2839471650-aZk3Qm9xWvB1nR8t",
    "an API key (nvapi-…)": "nvapi-" + "9aK2mQ7xZ4vB1nR8tY3uP6wS",
    "an API key (gsk_…)": "gsk_" + "9aK2mQ7xZ4vB1nR8tY3uP6wS",
    "a JSON web token": "eyJhbGciOiJSUzI1NiJ9." + "eyJpc3MiOiJ4Iiwic3ViIjoiNzMxIn0" + ".k9QzW2xV7bN4mR1tY8uP3sD6fG0h",
    "a Stripe key": "rk_live_" + "9aK2mQ7xZ4vB1nR8tY3uP6wS",
    "a Google client's secret": "GOCSPX-" + "9aK2mQ7xZ4vB1nR8tY3uP6wSdFgH",
    "an API key (xai-…)": "xai-" + "9aK2mQ7xZ4vB1nR8tY3uP6wS0dFgHjLkEeCc9aK2mQ7xZ4vB",
    "an API key (pplx-…)": "pplx-" + "9aK2mQ7xZ4vB1nR8tY3uP6wS0dFgHjLkEeCc",
    "an API key (tgp_v1_…)": "tgp_v1_" + "9aK2mQ7xZ4vB1nR8tY3uP6wS0dFgHjLkEeCc",
    "a Replicate token": "r8_" + "9aK2mQ7xZ4vB1nR8tY3uP6wS0dFgHjLkEeCc",
    "an npm token": "npm_" + "9aK2mQ7xZ4vB1nR8tY3uP6wS0dFgHjLkEeCc",
    "a PyPI token": "pypi-" + "AgEIcHlwaS5vcmcCJ9aK2mQ7xZ4vB1nR8tY3uP6wS0dFgHjLkEeCc",
    "a DigitalOcean token": "dop_v1_" + "4f09c2d7e1b8a6530f9e2d7c4b1a8f6e5d3c2b1a",
    "a SendGrid key": "SG." + "9aK2mQ7xZ4vB1nR8tY3uP6." + "wS0dFgHjLkEeCc9aK2mQ7xZ4vB1nR8tY3uP6",
    "a private key": "-----BEGIN RSA PRIVATE KEY-----\n" + "MIIEowIBAAKCAQEA7x3k9QzW2xV7bN4mR1tY8uP3sD6fG0hJ" + "\n",
}


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize(
    "around",
    [
        *("{}", "the key is {}.", '{{"key": "{}"}}', "export K={}\n", "x\n\n{}\n", "`{}`", "key={}&b"),
        *("密钥{}", r'{{"log": "\\n{}"}}', r"\t{}", r"k\u003d{}", "HF_TOKEN_{}", r"\boxed{{{}}}"),
    ],
)
def test_a_known_kind_of_key_is_found_and_named_by_its_kind(kind, around):
    assert SecretFinder([]).kind_in(around.format(KEYS[kind])) == kind


OTHER_FORMS = {
    "a Hugging Face token": "hf_oauth_" + "eyQwzTnVbKpLmRs4Xc9YdFgHjEuAoiWvBzNtMq",
    "an AWS access key": "ASIA" + "Q3ZT7MXW5KVB2NRY",
    "a Slack token": "xapp-" + "1-A07Q3ZT7MXW-2839471650-9f3a7c",
    "a private key": "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n" + "lQOYBGx3k9QzW2xV7bN4mR1tY8uP3sD6fG0hJx3k9QzW2xV",
}


@pytest.mark.parametrize("kind", OTHER_FORMS)
def test_a_kind_of_key_is_found_in_its_other_forms(kind):
    assert SecretFinder([]).kind_in(f"it is {OTHER_FORMS[kind]} .") == kind


@pytest.mark.parametrize("hiding", [("_", r"\_"), ("_", "_\u200b"), ("TnV", "Tn\ufeffV"), ("KpL", "Kp\u00adL")])
def test_a_key_is_found_with_invisible_characters_in_it(hiding):
    key = KEYS["a Hugging Face token"].replace(*hiding)
    assert SecretFinder([]).kind_in(rf"\texttt{{{key}}}") == "a Hugging Face token"


@pytest.mark.parametrize("value", ['pa"ss-Wörd/with spaces', "back\\slash-and-more-of-it", "tab\tand-so-on-and-on"])
def test_a_value_of_the_environment_is_found_as_json_and_addresses_write_it(value):
    for text in (json.dumps({"k": value}), json.dumps(json.dumps(value)), f"https://me:{quote(value, safe='')}@host/"):
        assert SecretFinder([value]).kind_in(text) == HERE


@pytest.mark.parametrize(
    "text",
    [
        "sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxx", "sk-your-api-key-goes-right-here-please", "sk-learn-based-classifier-pipe",
        "hf_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "AKIAIOSFODNN7EXAMPLE",
        "hf_transformersmodelloaderconfig", "a PEM file begins with -----BEGIN PRIVATE KEY----- and ends likewise",
        "npm_config_registry_of_the_package", "SG. A. Smith and so on",
        "xai-explainable-artificial-intelligence-methods",
        "risk-adjusted-returns-of-the-portfolio-2024", "AKIA is a prefix", "eyJ is how JSON begins in base64",
        "the task-based-scheduling-algorithm-of-2019-b", "\\boxed{42}", "TOKENIZERS_PARALLELISM=false", "",
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4ifQ.SflKxwRJSMeKKF2QT4fwpMeJ",
    ],
)  # fmt: skip
def test_placeholders_and_ordinary_words_are_none(text):
    assert SecretFinder([]).kind_in(text) is None


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz ABC.,-_=+()\\{}0123456789\n", max_size=400))
def test_texts_without_a_keys_beginning_are_none(text):
    if not any(mark in text for mark in ("hf_", "sk-", "gsk_", "AKIA", "xox")):
        assert SecretFinder([]).kind_in(text) is None


@pytest.mark.parametrize(
    ("value", "text", "is_found"),
    [
        ("Qm9xWvB1nR8tKj2L", "holds xQm9xWvB1nR8tKj2Lx inside", True),
        ("correct horse battery staple", "it is correct horse battery staple!", True),
        ("hunter-2024", "log in with hunter-2024.", True),
        ("hunter-2024", "ghunter-20245", False),
        ("sunshine", "the sunshine of May", False),
        ("false", "false", False),
        ("", "anything", False),
    ],
)
def test_values_of_the_environment_are_found(value, text, is_found):
    assert SecretFinder([value]).kind_in(text) == (HERE if is_found else None)


def test_a_long_text_full_of_beginnings_is_gone_through():
    text = "sk-aa " * 200_000 + "-----BEGIN PRIVATE KEY-----" * 20_000 + "eyJaaaaaaaaa." * 50_000
    assert SecretFinder([]).kind_in(text) is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:pass@host/x", "https://***@host/x"),
        ("see postgres://u:p%40@db:5432/x, then", "see postgres://***@db:5432/x, then"),
        ("https://x7Kq2mZ9vB4nR1tY8u@github.com/a", "https://***@github.com/a"),
        ("ssh://git@github.com/a", "ssh://git@github.com/a"),
        ("http://host:8000/v1 and a@b", "http://host:8000/v1 and a@b"),
    ],
)
def test_logins_in_addresses_are_hidden(text, shown):
    assert hide_logins(text) == shown
    assert bool(list(secrets_in_text(text))) == (shown != text)


@pytest.mark.parametrize("kind", KEYS)
def test_a_known_kind_of_key_is_redacted(kind):
    assert KEYS[kind] not in redact(f"before {KEYS[kind]} after")
