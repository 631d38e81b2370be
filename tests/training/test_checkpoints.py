"""Which checkpoint training goes on from: the newest that is whole, and its own. How one is sealed meanwhile."""

import hashlib
import os
import threading
import time

import pytest

from distill.errors import DiskError, StoreError
from distill.storage.layout import SEAL
from distill.training import checkpoints
from distill.training.checkpoints import CheckpointSealer, newest_checkpoint, remove_unsealed, set_damaged_aside

OUTSIDE = '{"owner": "mine", "files": {"../checkpoint-6/model.safetensors": {"bytes": 1001, "sha256": ""}}}'


def save(folder, step):
    """A checkpoint as the Trainer leaves it."""
    checkpoint = folder / f"checkpoint-{step}"
    (checkpoint / "inner").mkdir(parents=True)
    (checkpoint / "model.safetensors").write_bytes(bytes(1_000) + str(step).encode())
    (checkpoint / "inner" / "rng.pth").write_bytes(b"random")
    return checkpoint


def seal(checkpoint):
    with CheckpointSealer("mine", None) as sealing:
        sealing.start(checkpoint)


@pytest.fixture
def folder(tmp_path):
    for step in (3, 6, 12):
        seal(save(tmp_path, step))
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
        seal(folder / "checkpoint-12")
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


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


class SlowHash:
    """SHA-256 that takes its time on a thread that gives way to others, as where others keep it from a core."""

    piece_s = 0.0
    num_held_up = 0

    def __init__(self):
        self._hash = hashlib.new("sha256")
        self.hexdigest = self._hash.hexdigest

    def update(self, piece):
        if os.sched_getscheduler(0) == os.SCHED_IDLE:
            SlowHash.num_held_up += 1
            time.sleep(self.piece_s)
        self._hash.update(piece)


@pytest.fixture
def held_up(monkeypatch):
    """Hashing in the background takes a tenth of a second for ten bytes."""
    monkeypatch.setattr(SlowHash, "piece_s", 0.1)
    monkeypatch.setattr(SlowHash, "num_held_up", 0)
    monkeypatch.setattr(checkpoints, "PIECE_BYTES", 10)
    monkeypatch.setattr(checkpoints.hashlib, "sha256", SlowHash)
    return SlowHash


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_an_older_one_is_removed_only_when_a_newer_one_is_sealed(folder, held_up):
    with CheckpointSealer("mine", num_kept=2) as sealing:
        sealing.start(save(folder, 24))
        wait_for(lambda: held_up.num_held_up > 0)
        assert names(folder) == ["checkpoint-12", "checkpoint-24", "checkpoint-3", "checkpoint-6"]
        assert newest_checkpoint(folder, "mine").name == "checkpoint-12"
        sealing.finish()
        assert names(folder) == ["checkpoint-12", "checkpoint-24"]
        assert newest_checkpoint(folder, "mine").name == "checkpoint-24"


def test_the_only_sealed_one_stays_however_many_are_not(tmp_path, monkeypatch):
    """Where sealing fails, nothing is removed either."""
    seal(save(tmp_path, 3))
    monkeypatch.setattr(checkpoints, "write_json", lambda *_: (_ for _ in ()).throw(DiskError("full")))
    for step in (6, 9, 12):
        with pytest.raises(DiskError), CheckpointSealer("mine", num_kept=1) as sealing:
            sealing.start(save(tmp_path, step))
    assert newest_checkpoint(tmp_path, "mine").name == "checkpoint-3"


def test_who_waits_hashes_what_is_left_with_all_cores(folder, held_up):
    """1,002 bytes at 100 a second, of which the background has some."""
    sealing = CheckpointSealer("mine", None)
    sealing.start(save(folder, 24))
    wait_for(lambda: held_up.num_held_up > 3)
    began = time.monotonic()
    with sealing:
        pass
    assert time.monotonic() - began < 3
    assert held_up.num_held_up < 20
    assert set_damaged_aside(folder) == []
    assert newest_checkpoint(folder, "mine").name == "checkpoint-24"


def test_an_error_in_the_background_is_heard_without_waiting(folder, monkeypatch):
    go = threading.Event()

    def full(path, value):
        go.wait(20)
        raise DiskError("the disk is full")

    monkeypatch.setattr(checkpoints, "write_json", full)
    sealing = CheckpointSealer("mine", 2)
    sealing.start(save(folder, 24))
    sealing.check()  # nothing yet
    go.set()
    wait_for(sealing._background.done)
    with pytest.raises(DiskError, match="the disk is full"):
        sealing.check()
    assert newest_checkpoint(folder, "mine").name == "checkpoint-12"


def end_with(error, checkpoint, ready):
    """Training that ends with an error while a checkpoint is being sealed; the background's future."""
    sealing = CheckpointSealer("mine", None)
    with pytest.raises(type(error)), sealing:  # noqa: PT012 - it has to happen amid sealing
        sealing.start(checkpoint)
        background = sealing._background
        wait_for(ready)
        raise error
    return background


def test_what_was_begun_is_sealed_when_training_fails(folder, held_up):
    end_with(ValueError("training"), save(folder, 24), lambda: held_up.num_held_up > 0)
    assert newest_checkpoint(folder, "mine").name == "checkpoint-24"
    assert set_damaged_aside(folder) == []


def test_a_second_signal_waits_for_no_seal(folder, held_up):
    background = end_with(KeyboardInterrupt(), save(folder, 24), lambda: held_up.num_held_up > 0)
    wait_for(background.done)
    assert held_up.num_held_up < 20
    assert newest_checkpoint(folder, "mine").name == "checkpoint-12"
