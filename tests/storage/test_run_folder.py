import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.errors import StoreError
from distill.storage.files import atomic_write, disk_errors, read_json
from distill.storage.fingerprints import differences, fingerprint, sha256_of
from distill.storage.run_folder import Manifest, StageFolder, only_writer

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def manifest(**changes):
    fields = {
        "stage": "generate",
        "fingerprint": "f",
        "identity": {},
        "config": {},
        "outputs": {},
        "metrics": {
            "teacher": "org/big",
            "teacher_revision": "r1",
            "samples_per_problem": 2,
            "num_prompt_tokens": 1,
            "num_completion_tokens": 1,
            "num_samples": 4,
            "num_problems": 2,
            "num_problems_by_source": {},
            "finish_reasons": {},
        },
        "versions": {},
        "hardware": {},
        "git_commit": None,
        "seconds": 1.0,
        "peak_memory_gib": 1.0,
        "finished_at": "2026-01-01T00:00:00+00:00",
    }
    return Manifest(**(fields | changes))


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_fingerprint_depends_on_content_alone(identity):
    reordered = dict(reversed(identity.items()))
    assert fingerprint(identity) == fingerprint(reordered)
    assert fingerprint(identity) != fingerprint({**identity, "one more key": 1})


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_nothing_differs_from_itself(identity):
    assert differences(identity, json.loads(json.dumps(identity))) == {}


def test_differences_name_the_nested_key_with_both_values():
    old = {"sampling": {"temperature": 0.6, "top_p": 1.0}, "teacher": "a"}
    new = {"sampling": {"temperature": 0.7, "top_p": 1.0}, "teacher": "a", "system": "s"}
    assert differences(old, new) == {"sampling.temperature": (0.6, 0.7), "system": (None, "s")}


def test_atomic_write_leaves_the_old_file_when_the_new_one_cannot_be_written(tmp_path):
    target = tmp_path / "manifest.json"
    atomic_write(target, "old")
    with pytest.raises(TypeError):
        atomic_write(target, 3)  # type: ignore[arg-type]
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["manifest.json"]


def test_atomic_write_survives_a_kill_at_any_moment(tmp_path):
    """A process that writes for ever is killed again and again: the file is always one whole version."""
    script = (
        "import itertools, sys; from pathlib import Path; from distill.storage.run_folder import write_json\n"
        "for i in itertools.count(): write_json(Path(sys.argv[1]), {'version': i, 'again': [i] * 2000})"
    )
    target = tmp_path / "manifest.json"
    for pause_s in (0.5, 0.7, 0.61):
        writer = subprocess.Popen([sys.executable, "-c", script, str(target)])
        while not target.exists():
            time.sleep(0.02)
        time.sleep(pause_s)
        writer.kill()
        writer.wait()
        content = read_json(target)
        assert content["again"] == [content["version"]] * 2000


@pytest.mark.parametrize(
    ("code", "advice"), [(errno.ENOSPC, "disk is full"), (errno.EACCES, "no permission"), (errno.EIO, "failed")]
)
def test_disk_errors_say_what_to_do(tmp_path, code, advice):
    with pytest.raises(StoreError, match=advice) as caught, disk_errors(tmp_path):
        raise OSError(code, os.strerror(code))
    assert "the same command goes on" in str(caught.value)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_a_store_error():
    full = Path("/dev/full")
    with pytest.raises(StoreError, match="disk is full"), disk_errors(full), full.open("wb", buffering=0) as stream:
        stream.write(b"x")


def test_a_manifest_means_complete_and_reopening_takes_it_back(tmp_path):
    folder = StageFolder(tmp_path / "generate")
    folder.claim({"seed": 1})
    assert (folder.manifest, folder.identity) == (None, {"seed": 1})
    folder.complete(manifest())
    assert folder.manifest["stage"] == "generate"
    folder.reopen()
    assert (folder.manifest, folder.identity) == (None, {"seed": 1})


def test_set_aside_keeps_every_older_result(tmp_path):
    folder = StageFolder(tmp_path / "generate")
    assert folder.set_aside() is None
    for seed in (1, 2):
        folder.claim({"seed": seed})
        folder.set_aside()
    kept = [read_json(tmp_path / f"generate.replaced-{n}" / "identity.json") for n in (1, 2)]
    assert kept == [{"seed": 1}, {"seed": 2}]


def test_a_second_writer_is_refused_and_told_who_holds_the_folder(tmp_path):
    script = (
        "import sys; from pathlib import Path; from distill.storage.run_folder import only_writer\n"
        "with only_writer(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(StoreError, match=str(holder.pid)), only_writer(tmp_path):
        pass
    holder.kill()
    holder.communicate()
    with only_writer(tmp_path):  # the lock ended with its holder
        pass


def test_a_folders_checksum_sees_names_and_contents(tmp_path):
    (tmp_path / "a").write_text("1")
    before = sha256_of(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert sha256_of(tmp_path) != before


def test_broken_json_is_named(tmp_path):
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(StoreError, match=r"manifest\.json: not valid JSON"):
        read_json(tmp_path / "manifest.json")


KILLED_WHILE_WRITING = """
import os, sys
from pathlib import Path
from distill.storage import files
os.fsync = lambda descriptor: os.kill(os.getpid(), 9)
files.atomic_write(Path(sys.argv[1]), "new")
"""


def test_what_a_killed_writer_had_begun_is_removed_by_the_next_one(tmp_path):
    path = tmp_path / "run" / "filter" / "verdicts.json"
    atomic_write(path, "old")
    done = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(path)], capture_output=True)
    assert done.returncode == -9
    assert len(list(path.parent.iterdir())) == 2
    with only_writer(tmp_path / "run"):
        assert [one.name for one in path.parent.iterdir()] == ["verdicts.json"]
    assert path.read_text() == "old"
