import contextlib
import errno
import os
import subprocess
import sys
import threading
import time

import pytest

from distill.core.records import Trace
from distill.errors import StoreError
from distill.storage.ledger import Ledger, index_ledger, is_being_written, read_at, read_ledger


def trace(i, text="<think>\n1\n</think>\n\n2"):
    return Trace(f"p{i}", 0, "teacher", "rev", text, "1", "2", "stop", 5, 6, seed=i, sampling={"temperature": 0.6})


def test_what_is_appended_is_there_again(tmp_path):
    wild = trace(1, text='"quotes" \\ \n\r\u2028 \ud800 \x00 ünï')
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        ledger.append([trace(0), wild])
        ledger.append([])
        assert set(ledger.index.places) == {("p0", 0), ("p1", 0)}
    assert list(read_ledger(tmp_path / "ledger.jsonl")) == [trace(0), wild]


def test_a_record_torn_at_any_byte_is_cut_off_and_the_rest_kept(tmp_path):
    path = tmp_path / "ledger.jsonl"
    with Ledger(path) as ledger:
        ledger.append([trace(0)])
        whole = path.stat().st_size
        ledger.append([trace(1)])
    content = path.read_bytes()
    for length in range(whole, len(content)):
        path.write_bytes(content[:length])
        assert [t.problem_id for t in read_ledger(path)] == ["p0"]
        with Ledger(path) as ledger:
            assert set(ledger.index.places) == {("p0", 0)}
            ledger.append([trace(2)])
        assert [t.problem_id for t in read_ledger(path)] == ["p0", "p2"]


def test_a_flipped_bit_costs_its_own_record_only(tmp_path):
    path = tmp_path / "ledger.jsonl"
    with Ledger(path) as ledger:
        ledger.append([trace(0), trace(1), trace(2)])
    content = path.read_bytes()
    middle = range(content.index(b"\n") + 1, content.index(b"\n", content.index(b"\n") + 1))
    for position in middle:
        flipped = bytearray(content)
        flipped[position] ^= 1
        path.write_bytes(flipped)
        assert [t.problem_id for t in read_ledger(path)] == ["p0", "p2"]
        with Ledger(path) as ledger:
            assert set(ledger.index.places) == {("p0", 0), ("p2", 0)}
            assert len(ledger.index.damaged) >= 1


def test_a_second_crash_right_after_the_first_loses_nothing_more(tmp_path):
    path = tmp_path / "ledger.jsonl"
    with Ledger(path) as ledger:
        ledger.append([trace(0), trace(1)])
    content = path.read_bytes()
    first = content.index(b"\n") + 1
    for torn in range(first, len(content), 7):
        path.write_bytes(content[:torn])
        Ledger(path).close()  # cuts the torn record off, then "crashes" before anything is appended
        with path.open("ab") as stream:
            stream.write(content[first : first + 5])  # and the next writer is killed in its first record
        with Ledger(path) as ledger:
            assert set(ledger.index.places) == {("p0", 0)}
            ledger.append([trace(2)])
        assert [t.problem_id for t in read_ledger(path)] == ["p0", "p2"]


def test_a_skip_is_remembered_until_the_sample_is_drawn(tmp_path):
    path = tmp_path / "ledger.jsonl"
    with Ledger(path) as ledger:
        ledger.append([trace(0)])
        ledger.skip([("p1", 0), ("p2", 0)], "enough")
        ledger.append([trace(2)])
    index = index_ledger(path)
    assert index.skipped == {("p1", 0): "enough"}
    assert set(index.places) == {("p0", 0), ("p2", 0)}
    assert index.tally.num_samples == 2
    assert index.tally.num_completion_tokens == 12
    assert list(read_at(path, index.places.values())) == [trace(0), trace(2)]


def test_a_writer_can_be_seen(tmp_path):
    path = tmp_path / "ledger.jsonl"
    assert not is_being_written(path)
    with Ledger(path):
        assert is_being_written(path)
    assert not is_being_written(path)


def test_a_second_writer_is_refused(tmp_path):
    with Ledger(tmp_path / "ledger.jsonl"), pytest.raises(StoreError, match="another process"):
        Ledger(tmp_path / "ledger.jsonl")


def test_a_full_disk_keeps_the_earlier_records_and_the_work_goes_on_later(tmp_path):
    """A file size limit makes the kernel refuse the write half-way, as a full disk does."""
    script = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from distill.storage.ledger import Ledger; from distill.core.records import Trace\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
        "with Ledger(Path(sys.argv[1])) as ledger:\n"
        "    for i in range(100):\n"
        "        ledger.append([Trace(f'p{i}', 0, 't', 'r', 'x' * 200, '', '', 'stop', 1, 1, i)])"
    )
    path = tmp_path / "ledger.jsonl"
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True)
    assert done.returncode != 0
    assert "DiskError" in done.stderr
    assert path.read_bytes().endswith(b"\n")
    kept = [t.problem_id for t in read_ledger(path)]
    assert kept == [f"p{i}" for i in range(len(kept))]
    assert kept
    with Ledger(path) as ledger:
        ledger.append([trace(999)])
        assert len(ledger.index.places) == len(kept) + 1


def test_a_killed_writer_loses_nothing_that_it_reported(tmp_path):
    script = (
        "import itertools, sys; from pathlib import Path\n"
        "from distill.storage.ledger import Ledger; from distill.core.records import Trace\n"
        "with Ledger(Path(sys.argv[1])) as ledger:\n"
        "    for i in itertools.count(len(ledger.index.places)):\n"
        "        ledger.append([Trace(f'p{i}', 0, 't', 'r', 'x' * 5000, '', '', 'stop', 1, 1, i)])\n"
        "        print(i, flush=True)"
    )
    path = tmp_path / "ledger.jsonl"
    reported = -1
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)
        writer.stdout.readline()
        time.sleep(0.3)
        writer.kill()
        lines = writer.communicate()[0].split()
        reported = max([reported, *map(int, lines)])
        kept = [t.problem_id for t in read_ledger(path)]
        assert len(kept) == len(set(kept))
        assert kept == [f"p{i}" for i in range(len(kept))]
        assert len(kept) > reported
    assert os.path.getsize(path) > 5000  # noqa: PTH202


@pytest.mark.parametrize("failing", ["write", "fdatasync"])
def test_a_broken_disk_keeps_the_earlier_records(tmp_path, failing):
    """EIO from the kernel, and a write that takes only some of the bytes before it fails."""
    script = (
        "import errno, io, os, sys; from pathlib import Path\n"
        "import distill.storage.ledger as ledger_module; from distill.core.records import Trace\n"
        "calls = 0\n"
        "def fails(real):\n"
        "    def wrapped(*arguments):\n"
        "        global calls\n"
        "        calls += 1\n"
        "        if calls == 5: raise OSError(errno.EIO, 'Input/output error')\n"
        "        return real(*arguments)\n"
        "    return wrapped\n"
        "class Broken(io.FileIO):\n"
        "    def write(self, view):\n"
        "        global calls\n"
        "        calls += 1\n"
        "        if calls == 9: raise OSError(errno.EIO, 'Input/output error')\n"
        "        return super().write(view[: max(1, len(view) // 2)])\n"
        "ledger = ledger_module.Ledger(Path(sys.argv[1]))\n"
        "if sys.argv[2] == 'fdatasync': os.fdatasync = fails(os.fdatasync)\n"
        "else: ledger._file = Broken(sys.argv[1], 'ab+')\n"
        "for i in range(100):\n"
        "    ledger.append([Trace(f'p{i}', 0, 't', 'r', 'x' * 200, '', '', 'stop', 1, 1, i)])\n"
        "    ledger.sync()"
    )
    path = tmp_path / "ledger.jsonl"
    done = subprocess.run([sys.executable, "-c", script, str(path), failing], capture_output=True, text=True)
    assert done.returncode != 0
    assert "Check the disk" in done.stderr
    kept = [t.problem_id for t in read_ledger(path)]
    assert kept == [f"p{i}" for i in range(4 if failing == "fdatasync" else len(kept))]
    with Ledger(path) as ledger:
        ledger.append([trace(999)])
        assert len(ledger.index.places) == len(kept) + 1
        assert not ledger.index.damaged


def test_appending_does_not_wait_for_the_disk_and_syncing_does(tmp_path, monkeypatch):
    may_go_on, real = threading.Event(), os.fdatasync
    calls = []

    def slow(descriptor):
        assert may_go_on.wait(60)
        calls.append(descriptor)
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", slow)
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        for i in range(50):
            ledger.append([trace(i)])
        assert not calls
        assert len(list(read_ledger(ledger.path))) == 50  # in the file already: a kill of the process takes nothing
        may_go_on.set()
        ledger.sync()
        assert 1 <= len(calls) <= 2  # one for the first record or more, one for all others


def test_a_disk_that_breaks_in_the_background_is_told_at_the_end_and_only_the_safe_records_stay(tmp_path, monkeypatch):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append([trace(0)])
    ledger.sync()

    def broken(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", broken)
    with contextlib.suppress(StoreError):  # told here already, or at the end
        ledger.append([trace(1)])
        ledger.append([trace(2)])
    with pytest.raises(StoreError, match="Check the disk"):
        ledger.close()
    assert [t.problem_id for t in read_ledger(ledger.path)] == ["p0"]
    assert not is_being_written(ledger.path)
