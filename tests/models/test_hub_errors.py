"""What a Hub's refusal says: its own words, and the token only where they are about it."""

import httpx
import pytest
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError
from huggingface_hub.utils import hf_raise_for_status

from distill.errors import ModelError, ProblemError, StageError, UserError
from distill.models import hub
from distill.models.hub_errors import download_refusal, hub_errors, hub_words, is_about_token, translated

STORAGE = "Private repository storage limit reached, please upgrade your plan to increase it"
NOT_THE_TOKEN = [
    STORAGE,
    "Your storage patterns tripped our internal systems! Please contact us so that we can unlock more storage",
    "You have exceeded your monthly included credits",
    "Payment required: your organization has no active subscription",
    "Access to this resource is disabled.",
    "This repository was flagged for a violation of our terms of service; write access is suspended",
    "Your account has been banned",
    "Access to model org/one is restricted and you are not in the authorized list",
    "Pass `create_pr=1` to open a pull request",
    "a fault",
]
THE_TOKEN = [
    "You don't have the rights to create a model under the namespace org",
    "Authorization error.",
    "This token has no write permission",
    "Your fine-grained token lacks the scope repo.write",
    "Invalid credentials in Authorization header",
    "Forbidden: you are not a member of this organization",
    "Read-only access",
]


def refused(status, words, where="json", code=""):
    """The error that huggingface_hub makes of an answer."""
    request = httpx.Request("POST", "https://hub.example/api/models/org/one/commit/main?sig=secret")
    headers = {"X-Error-Code": code} if code else {}
    if where == "header":
        response = httpx.Response(status, headers={**headers, "X-Error-Message": words}, request=request)
    elif where == "message":
        response = httpx.Response(status, headers=headers, json={"message": words}, request=request)
    elif where == "text":
        response = httpx.Response(status, headers=headers, text=words, request=request)
    else:
        response = httpx.Response(status, headers=headers, json={"error": words} if words else {}, request=request)
    with pytest.raises(HfHubHTTPError) as caught:
        hf_raise_for_status(response)
    return caught.value


@pytest.mark.parametrize("where", ["json", "header", "message", "text"])
@pytest.mark.parametrize("words", NOT_THE_TOKEN)
def test_a_403_that_is_not_about_the_token_says_what_the_hub_says_alone(words, where):
    error = refused(403, words, where)
    assert hub_words(error) == words
    said = translated(error, "org/one")
    assert isinstance(said, UserError)
    assert f"push: org/one: the Hub refuses it (403): {words}" in str(said)
    for guess in ("HF_TOKEN", "hf auth login", "correct permissions", "may not write", "sig=secret"):
        assert guess not in str(said)


@pytest.mark.parametrize("words", THE_TOKEN)
def test_a_403_about_the_token_says_so_and_what_to_do(words):
    said = str(translated(refused(403, words), "org/one"))
    assert "the token may not write there (403)" in said
    assert words.rstrip(".") in said
    assert "HF_TOKEN" in said


def test_a_403_without_a_word_is_no_guess():
    said = str(translated(refused(403, ""), "org/one"))
    assert "the Hub refuses it (403): it gives no reason." in said
    assert "token" not in said


@pytest.mark.parametrize("words", [STORAGE, "a fault"])
def test_an_error_that_hides_behind_another_is_found(words):
    def upload():
        try:
            raise refused(403, words)
        except HfHubHTTPError as error:
            raise RuntimeError("Error while uploading 'model.safetensors' to the Hub.") from error

    with pytest.raises(UserError, match="refuses it") as caught, hub_errors("org/one"):
        upload()
    assert words in str(caught.value)


@pytest.mark.parametrize(("status", "kind"), [(402, UserError), (413, UserError), (429, StageError), (507, StageError)])
def test_other_refusals(status, kind):
    assert isinstance(translated(refused(status, STORAGE), "org/one"), kind)


def test_which_words_are_about_the_token():
    assert [words for words in NOT_THE_TOKEN if is_about_token(words)] == []
    assert [words for words in THE_TOKEN if not is_about_token(words)] == []


@pytest.mark.parametrize(
    ("status", "words", "said", "advises"),
    [
        (403, "Access to this resource is disabled.", "refuses it (403): Access to this resource is disabled.", False),
        (403, "This token may not read private repositories", "This token may not read", True),
        (403, "", "it gives no reason", False),
        (451, "Unavailable in your country", "refuses it (451): Unavailable in your country.", False),
        (429, "slow down", "rate limit is reached (429)", False),
        (503, "", "the Hub fails (503)", False),
        (401, "Invalid credentials in Authorization header", "does not accept the token (401)", True),
    ],
)
def test_a_download_that_is_refused(monkeypatch, status, words, said, advises):
    error = refused(status, words, "header")

    def fail(*args, **kwargs):
        raise error

    assert said in download_refusal(error)
    monkeypatch.setattr(hub, "_snapshot", fail)
    with pytest.raises(ModelError, match="not in the local cache") as caught:
        hub.resolve_model("org/one")
    assert said in str(caught.value)
    assert ("hf auth login" in str(caught.value)) == advises
    assert "cannot be reached" not in str(caught.value)


@pytest.mark.parametrize("status", [402, 403, 429, 451, 500])
def test_a_dataset_that_is_refused(monkeypatch, status):
    import datasets

    error = refused(status, STORAGE)

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(datasets, "load_dataset_builder", fail)
    with pytest.raises(ProblemError) as caught:
        hub.load_hub_dataset("org/rows", None, "train", None)
    assert str(status) in str(caught.value)
    assert "token" not in str(caught.value)
    assert (STORAGE in str(caught.value)) == (status not in (429, 500))


def test_a_gated_dataset_tells_where_to_ask(monkeypatch):
    import datasets

    gate = refused(403, "Access to dataset org/rows is restricted", code="GatedRepo")
    assert isinstance(gate, GatedRepoError)

    def fail(*args, **kwargs):
        raise datasets.exceptions.DatasetNotFoundError("Dataset 'org/rows' is a gated dataset on the Hub.") from gate

    monkeypatch.setattr(datasets, "load_dataset_builder", fail)
    with pytest.raises(ProblemError, match=r"gated\. Ask for access on https://huggingface\.co/datasets/org/rows"):
        hub.load_hub_dataset("org/rows", None, "train", None)


def test_no_answer_is_no_refusal():
    assert download_refusal(OSError("no route to host")) is None
