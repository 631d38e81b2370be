"""The student table: R1's six students and what a name that is not in it means."""

import pytest

from distill.errors import DistillError, ModelError
from distill.students import DEFAULT_LEARNING_RATE, STUDENTS, find_student

# DeepSeek-R1 (arXiv:2501.12948), table 5, and the learning rates of the Nature version's supplement
PUBLISHED = {
    "qwen-1.5b": ("Qwen/Qwen2.5-Math-1.5B", 1e-4, 28.9, 83.9),
    "qwen-7b": ("Qwen/Qwen2.5-Math-7B", 8e-5, 55.5, 92.8),
    "qwen-14b": ("Qwen/Qwen2.5-14B", 7e-5, 69.7, 93.9),
    "qwen-32b": ("Qwen/Qwen2.5-32B", 6e-5, 72.6, 94.3),
    "llama-8b": ("meta-llama/Llama-3.1-8B", 5e-5, 50.4, 89.1),
    "llama-70b": ("meta-llama/Llama-3.3-70B-Instruct", 2e-5, 70.0, 94.5),
}


@pytest.mark.parametrize("alias", PUBLISHED)
def test_published_students(alias):
    student = find_student(alias)
    found = (student.hub_id, student.learning_rate, student.aime24_pass_at_1, student.math500_pass_at_1)
    assert found == PUBLISHED[alias]


@pytest.mark.parametrize("alias", STUDENTS)
def test_alias_and_hub_id_find_the_same(alias):
    assert find_student(alias).alias == alias
    assert find_student(STUDENTS[alias].hub_id) is STUDENTS[alias]


def test_every_student_has_what_training_needs():
    assert {s.alias for s in STUDENTS.values()} == PUBLISHED.keys() | {"smollm2-135m"}
    for student in STUDENTS.values():
        assert student.chat_format in ("chatml", "llama3")
        assert student.stop_token
        assert student.context
        assert student.context >= 4_096


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
