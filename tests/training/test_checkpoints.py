"""Which checkpoint training goes on from: the newest that is whole, and its own."""

import pytest

from distill.errors import StoreError
from distill.training.checkpoints import SEAL, newest_checkpoint, remove_unsealed, seal, set_damaged_aside

OUTSIDE = '{"owner": "mine", "files": {"../checkpoint-6/model.safetensors": {"bytes": 1001, "sha256": ""}}}'


@pytest.fixture
def folder(tmp_path):
    for step in (3, 6, 12):
        checkpoint = tmp_path / f"checkpoint-{step}"
        (checkpoint / "inner").mkdir(parents=True)
        (checkpoint / "model.safetensors").write_bytes(bytes(1_000) + str(step).encode())
        (checkpoint / "inner" / "rng.pth").write_bytes(b"random")
        seal(checkpoint, "mine")
    return tmp_path


def test_the_newest_by_step_is_taken(folder):
    assert set_damaged_aside(folder) == []
    assert newest_checkpoint(folder, "mine").name == "checkpoint-12"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda ck: (ck / "model.safetensors").write_bytes(bytes(999) + b"x12"), "content of model.safetensors"),
        (lambda ck: (ck / "model.safetensors").write_bytes(b"short"), "model.safetensors was cut short"),
        (lambda ck: (ck / "inner" / "rng.pth").unlink(), "inner/rng.pth is missing"),
        (lambda ck: (ck / SEAL).write_text("{"), "cannot be read"),
        (lambda ck: (ck / SEAL).write_text("[]"), "cannot be read"),
        (lambda ck: (ck / SEAL).write_text('{"files": {}}'), "owner is missing"),
        (lambda ck: (ck / SEAL).write_text('{"owner": "mine", "files": {"a": 1}}'), "not an object"),
        (lambda ck: (ck / SEAL).write_text(OUTSIDE), "names '../checkpoint-6/model.safetensors'"),
    ],
)
def test_a_damaged_one_is_moved_aside_and_the_one_before_it_taken(folder, damage, words):
    damage(folder / "checkpoint-12")
    (message,) = set_damaged_aside(folder)
    assert message.startswith("checkpoint-12 is damaged")
    assert words in message
    assert newest_checkpoint(folder, "mine").name == "checkpoint-6"
    assert (folder / "damaged-checkpoint-12").is_dir()
    assert set_damaged_aside(folder) == []


def test_a_seal_without_an_owner_and_a_folder_without_a_step_are_no_tracebacks(folder):
    (folder / "checkpoint-best").mkdir()
    (folder / "checkpoint-best" / SEAL).write_text("{}")
    assert newest_checkpoint(folder, "mine").name == "checkpoint-12"
    (folder / "checkpoint-12" / SEAL).write_text('{"files": {}}')
    with pytest.raises(StoreError, match="owner is missing"):
        newest_checkpoint(folder, "mine")


def test_all_damaged_means_a_new_start(folder):
    for step in (3, 6, 12):
        (folder / f"checkpoint-{step}" / "inner" / "rng.pth").write_bytes(b"rAndom")
    assert len(set_damaged_aside(folder)) == 3
    assert newest_checkpoint(folder, "mine") is None


def test_the_same_step_may_be_damaged_twice(folder):
    for _ in range(2):
        (folder / "checkpoint-12").mkdir(exist_ok=True)
        (folder / "checkpoint-12" / "model.safetensors").write_bytes(b"1")
        seal(folder / "checkpoint-12", "mine")
        (folder / "checkpoint-12" / "model.safetensors").write_bytes(b"2")
        set_damaged_aside(folder)
    assert (folder / "damaged-checkpoint-12-2").is_dir()


def test_one_without_a_seal_was_cut_short(folder):
    (folder / "checkpoint-12" / SEAL).unlink()
    assert newest_checkpoint(folder, "mine").name == "checkpoint-6"
    remove_unsealed(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint-3", "checkpoint-6"]


def test_another_trainings_checkpoints_are_refused(folder):
    with pytest.raises(StoreError, match="checkpoints of another training"):
        newest_checkpoint(folder, "yours")


def test_no_checkpoints_at_all(tmp_path):
    assert newest_checkpoint(tmp_path / "none", "mine") is None
    assert set_damaged_aside(tmp_path / "none") == []
