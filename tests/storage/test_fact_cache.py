import sqlite3
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.isolation import call_isolated
from distill.isolation.walls import WALLS, has_wall
from distill.storage.fact_cache import FactCache, fact_key


def test_what_is_put_is_found_again_by_any_reader(tmp_path):
    path = tmp_path / "facts.sqlite"
    keys = [fact_key(str(i)) for i in range(1_200)]
    with FactCache(path, write=True) as cache:
        cache.put({key: {"n": i, "text": "\ud800"} for i, key in enumerate(keys)})
        with FactCache(path) as reader:
            found = reader.get([*keys, fact_key("unknown")])
        assert found == {key: {"n": i, "text": "\ud800"} for i, key in enumerate(keys)}
        cache.put([(keys[0], None)])
        assert cache.get(keys[:1]) == {keys[0]: None}


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_keys_tell_their_parts_apart(first, second):
    assert (fact_key(*first) == fact_key(*second)) == (first == second)


def test_a_killed_writer_leaves_whole_facts(tmp_path):
    script = (
        "import os, sys; from pathlib import Path; from distill.storage.fact_cache import FactCache, fact_key\n"
        "cache = FactCache(Path(sys.argv[1]), write=True)\n"
        "cache.put({fact_key('a'): 1})\n"
        "cache._connection.execute('INSERT INTO facts VALUES (?, ?)', (fact_key('b'), '2'))\n"
        "os.kill(os.getpid(), 9)"
    )
    path = tmp_path / "facts.sqlite"
    assert subprocess.run([sys.executable, "-c", script, str(path)]).returncode == -9
    with FactCache(path, write=True) as cache:
        assert cache.get([fact_key("a"), fact_key("b")]) == {fact_key("a"): 1}


def test_a_damaged_file_is_moved_aside_and_begun_again(tmp_path):
    path = tmp_path / "facts.sqlite"
    path.write_bytes(b"no database" * 1_000)
    with FactCache(path, write=True) as cache:
        cache.put({fact_key("a"): 1})
        assert cache.get([fact_key("a")]) == {fact_key("a"): 1}
    assert (tmp_path / "facts.sqlite.damaged").read_bytes().startswith(b"no database")


def test_a_reader_makes_nothing(tmp_path):
    with pytest.raises(sqlite3.OperationalError):
        FactCache(tmp_path / "facts.sqlite")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wall", [wall for wall in WALLS if has_wall(wall)])
def test_confined_processes_read_what_was_just_written(tmp_path, wall):
    """A reader that may not write has to follow the writer's log."""
    path = tmp_path / "facts.sqlite"
    keys = [fact_key(str(number)) for number in range(300)]
    read = (
        "__import__('distill.storage.fact_cache', fromlist=['FactCache'])"
        f".FactCache(__import__('pathlib').Path({str(path)!r})).get"
    )
    with FactCache(path, write=True) as cache:
        for number, key in enumerate(keys):
            cache.put({key: number})
            if number % 50 == 0:
                found = call_isolated(
                    eval, f"{read}({keys!r})", timeout_s=60, memory_gib=1, read_paths=[tmp_path], wall=wall
                )
                assert found == {key: number for number, key in enumerate(keys[: number + 1])}
