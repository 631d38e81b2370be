"""The student table: R1's six students and what a name that is not in it means."""

from dataclasses import astuple

import pytest

from distill.errors import DistillError, ModelError
from distill.models.students import DEFAULT_LEARNING_RATE, STUDENTS, find_student

# DeepSeek-R1 (arXiv:2501.12948), table 5, and the learning rates of the Nature version's supplement
PUBLISHED = {
    "qwen-1.5b": ("Qwen/Qwen2.5-Math-1.5B", 1e-4, (28.9, 52.7, 83.9, 33.8, 16.9, 954)),
    "qwen-7b": ("Qwen/Qwen2.5-Math-7B", 8e-5, (55.5, 83.3, 92.8, 49.1, 37.6, 1189)),
    "qwen-14b": ("Qwen/Qwen2.5-14B", 7e-5, (69.7, 80.0, 93.9, 59.1, 53.1, 1481)),
    "qwen-32b": ("Qwen/Qwen2.5-32B", 6e-5, (72.6, 83.3, 94.3, 62.1, 57.2, 1691)),
    "llama-8b": ("meta-llama/Llama-3.1-8B", 5e-5, (50.4, 80.0, 89.1, 49.0, 39.6, 1205)),
    "llama-70b": ("meta-llama/Llama-3.3-70B-Instruct", 2e-5, (70.0, 86.7, 94.5, 65.2, 57.5, 1633)),
}
LICENSES = {
    "meta-llama/Llama-3.1-8B": "llama3.1",
    "meta-llama/Llama-3.3-70B-Instruct": "llama3.3",
    "meta-llama/Llama-3.2-1B-Instruct": "llama3.2",
    "meta-llama/Llama-3.2-3B-Instruct": "llama3.2",
}


@pytest.mark.parametrize("alias", PUBLISHED)
def test_published_students(alias):
    student = find_student(alias)
    assert (student.hub_id, student.learning_rate, astuple(student.r1_scores)) == PUBLISHED[alias]


def test_students_that_r1_did_not_have_have_no_scores():
    assert {alias for alias, student in STUDENTS.items() if student.r1_scores} == PUBLISHED.keys()


@pytest.mark.parametrize("alias", STUDENTS)
def test_licences(alias):
    student = STUDENTS[alias]
    assert student.license == LICENSES.get(student.hub_id, "apache-2.0")


def test_short_bases_reach_r1s_rows_with_another_theta():
    patched = {alias for alias, student in STUDENTS.items() if student.rope_theta}
    assert patched == {"qwen-1.5b", "qwen-7b"}
    for alias in patched:
        assert (STUDENTS[alias].context, STUDENTS[alias].longest_context) == (4_096, 32_768)
    assert all(s.longest_context == s.context for alias, s in STUDENTS.items() if alias not in patched)


def test_templates_that_alter_rows_are_replaced():
    replaced = {alias for alias, student in STUDENTS.items() if student.template_override}
    assert replaced == {"llama-70b", "llama3.2-1b", "llama3.2-3b", *(a for a in STUDENTS if a.startswith("qwen3"))}
    assert STUDENTS["qwen3-4b"].template_override == "chatml"
    assert STUDENTS["llama-70b"].template_override == "llama3"


@pytest.mark.parametrize("alias", STUDENTS)
def test_alias_and_hub_id_find_the_same(alias):
    assert find_student(alias).alias == alias
    assert find_student(STUDENTS[alias].hub_id) is STUDENTS[alias]


def test_every_student_has_what_training_needs():
    for student in STUDENTS.values():
        assert student.chat_format in ("chatml", "llama3")
        assert student.stop_token
        assert student.context
        assert student.context >= 4_096
        assert student.shape


def test_any_hub_id_is_a_student():
    student = find_student("some-org/some-model")
    assert (student.alias, student.hub_id) == ("some-org/some-model", "some-org/some-model")
    assert student.learning_rate == DEFAULT_LEARNING_RATE
    assert student.context is None
    assert student.chat_format is None


def test_a_local_folder_is_a_student(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_student("mine").hub_id == "mine"
    assert find_student(str(tmp_path / "mine")).hub_id == str(tmp_path / "mine")


@pytest.mark.parametrize(
    ("typo", "meant"), [("qwen1.5b", "qwen-1.5b"), ("lama-8b", "llama-8b"), ("smollm2-135", "smollm2-135m")]
)
def test_a_typo_gets_a_suggestion(typo, meant):
    with pytest.raises(ModelError, match=f"unknown student '{typo}'. Did you mean '{meant}'"):
        find_student(typo)


@pytest.mark.parametrize("name", ["", "xyzzy"])
def test_what_is_like_nothing_gets_the_list(name):
    with pytest.raises(ModelError) as caught:
        find_student(name)
    message = str(caught.value)
    assert "Did you mean" not in message
    assert all(alias in message for alias in STUDENTS)
    assert "Hub id (org/model) or a local folder" in message
    assert isinstance(caught.value, DistillError)
