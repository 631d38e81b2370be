"""Short names of models: telling, and the same whatever stands beside them."""

from distill.evaluation.model_names import MAX_CHARS, roles_of, short_name
from distill.storage.files import write_json
from distill.storage.layout import SUMMARY


def test_a_short_name_is_that_of_the_hub_or_the_telling_part_of_a_path(tmp_path):
    assert short_name("org/model-1.5B") == "org-model-1.5B"
    assert short_name("/models/my model") == "my-model"
    assert short_name(f"{tmp_path}/a/sft/student") == "a-student"
    assert short_name(f"{tmp_path}/student") == "student"
    assert short_name("/") == "model"
    assert short_name("org/" + "x" * 120) == "x" * MAX_CHARS


def test_the_student_of_a_round_has_the_runs_name_too(tmp_path):
    write_json(tmp_path / "a" / SUMMARY, {})
    assert short_name(f"{tmp_path}/a/cold-start/sft/student") == "a-cold-start-student"


def test_models_of_one_short_name_have_the_same_roles_in_whatever_order():
    models = ["/x/model", "/y/model", "/z/other"]
    roles = roles_of(models)
    assert [*roles.values()] == models
    assert len(roles) == 3
    assert "other" in roles
    assert all(role == "other" or role.startswith("model-") for role in roles)
    assert roles_of(models[::-1]) == roles
