"""A small Hub on loopback: what huggingface_hub's client needs of it to publish, with faults on demand.

It keeps repositories as a list of commits, each with all its files; large files lie apart, by SHA-256. A commit that
names a large file which never arrived is refused, as the real one does.
"""

import base64
import hashlib
import json
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

ATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n*.parquet filter=lfs diff=lfs merge=lfs -text\n"


@dataclass
class Fault:
    """What happens to requests that match, the first `times` of them."""

    method: str
    path: str
    """Regular expression."""
    status: int = 0
    """Answer with this status; 0: tear the connection down."""
    times: int = 1
    after_bytes: int | None = None
    """Read so much of the body first, and no more; left out: all of it."""
    after_work: bool = False
    """Do the work first, and lose the answer."""
    hangs: bool = False
    """Say nothing until the client has gone."""
    headers: dict[str, str] = field(default_factory=dict)
    said: str = "a fault"


@dataclass
class Repo:
    private: bool
    commits: list[tuple[str, str, dict[str, bytes | str]]] = field(default_factory=list)
    """(oid, title, files); a file is its content, or the SHA-256 of a large one."""
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, title: str, files: dict[str, bytes | str], branch: str) -> str:
        oid = hashlib.sha1(f"{len(self.commits)} {title} {sorted(files)}".encode()).hexdigest()
        self.commits.append((oid, title, files))
        self.branches[branch] = oid
        return oid

    def files(self, revision: str) -> dict[str, bytes | str] | None:
        oid = self.branches.get(revision, revision)
        return next((files for one, _, files in self.commits if one == oid), None)

    def head(self, revision: str) -> str | None:
        oid = self.branches.get(revision, revision)
        return oid if any(one == oid for one, _, _ in self.commits) else None


class Hub:
    """The server and what it holds."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.large: dict[str, bytes] = {}
        self.num_puts: Counter[str] = Counter()
        """Times that a large file's content was sent whole, by SHA-256."""
        self.requests: list[tuple[str, str]] = []
        self.faults: list[Fault] = []
        self.readers: set[str] = set()
        """Repositories that the token may only read."""
        self.me: dict[str, Any] = {
            "type": "user",
            "name": "me",
            "orgs": [{"name": "my-org", "roleInOrg": "write"}, {"name": "their-org", "roleInOrg": "read"}],
            "auth": {"type": "access_token", "accessToken": {"displayName": "test", "role": "write"}},
        }
        self.tokens = {"hf_test_canary_0123456789abcdef"}
        self.on_request: Callable[[str, str], None] = lambda method, path: None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_for(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def make(self, kind: str, name: str, private: bool = True, files: dict[str, bytes] | None = None) -> Repo:
        """A repository as somebody else made it."""
        repo = self.repos[kind, name] = Repo(private)
        repo.commit("initial commit", {".gitattributes": ATTRIBUTES, **(files or {})}, "main")
        return repo

    def content(self, kind: str, name: str, revision: str = "main") -> dict[str, bytes]:
        """The files of a revision, large ones too."""
        files = self.repos[kind, name].files(revision) or {}
        return {path: self.large[file] if isinstance(file, str) else file for path, file in files.items()}

    def num_commits(self, kind: str, name: str) -> int:
        return len(self.repos[kind, name].commits) - 1


class _Answer(Exception):  # noqa: N818 - most answers are none
    def __init__(self, status: int, body: Any = None, headers: dict[str, str] | None = None) -> None:
        super().__init__(status)
        self.status, self.body, self.headers = status, body, headers or {}


def _refused(status: int, code: str, message: str) -> _Answer:
    return _Answer(status, {"error": message}, {"X-Error-Code": code, "X-Error-Message": message})


def _handler_for(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        pass

    Handler.hub = hub
    return Handler


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._handle()

    do_POST = do_PUT = do_HEAD = do_DELETE = do_GET  # noqa: N815 - http.server names them so

    def _handle(self) -> None:
        path = urlsplit(self.path).path
        self.hub.requests.append((self.command, path))
        self.hub.on_request(self.command, path)
        fault = self._fault(path)
        if fault is not None and fault.after_bytes is not None:
            self.rfile.read(fault.after_bytes)
            self._tear()
            return
        body = self._body()
        if fault is not None and fault.hangs:
            self.connection.settimeout(60)
            self.rfile.read(1)
            return
        try:
            if fault is not None and not fault.after_work:
                raise _Answer(fault.status, {"error": fault.said}, fault.headers)
            answer = self._route(path, body)
            if fault is not None:
                answer = _Answer(fault.status, {"error": fault.said}, fault.headers)
        except _Answer as found:
            answer = found
        if answer.status == 0:
            self._tear()
            return
        content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _fault(self, path: str) -> Fault | None:
        for fault in self.hub.faults:
            if fault.times > 0 and fault.method == self.command and re.search(fault.path, path):
                fault.times -= 1
                return fault
        return None

    def _tear(self) -> None:
        """End the connection with a reset, not with a goodbye."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    # --- the protocol

    def _route(self, path: str, body: bytes) -> _Answer:
        for method, pattern, handle in _ROUTES:
            found = re.fullmatch(pattern, path)
            if method == self.command and found:
                if method != "PUT":
                    self._check_token()
                return handle(self, body, *(unquote(group or "") for group in found.groups()))
        return _Answer(404, {"error": f"no such route {self.command} {path}"})

    def _check_token(self) -> None:
        if self.headers.get("Authorization", "").removeprefix("Bearer ") not in self.hub.tokens:
            raise _refused(401, "", "Invalid credentials in Authorization header")

    def _repo(self, kind: str, name: str) -> Repo:
        repo = self.hub.repos.get((kind, name))
        if repo is None:
            raise _refused(404, "RepoNotFound", "Repository not found")
        return repo

    def _may_write(self, name: str) -> None:
        owner = name.partition("/")[0]
        roles = {org["name"]: org["roleInOrg"] for org in self.hub.me["orgs"]} | {self.hub.me["name"]: "admin"}
        if name in self.hub.readers or roles.get(owner) not in ("admin", "write", "contributor"):
            raise _refused(403, "Forbidden", f"You don't have the rights to write to {name}")

    def _whoami(self, body: bytes) -> _Answer:
        return _Answer(200, self.hub.me)

    def _validate(self, body: bytes) -> _Answer:
        return _Answer(200, {"errors": [], "warnings": []})

    def _create(self, body: bytes) -> _Answer:
        wanted = json.loads(body)
        kind = wanted.get("type") or "model"
        name = f"{wanted['organization'] or self.hub.me['name']}/{wanted['name']}"
        self._may_write(name)
        if (kind, name) in self.hub.repos:
            return _Answer(409, {"error": "You already created this repo", "url": f"{self.hub.url}/{name}"})
        self.hub.make(kind, name, wanted.get("visibility") == "private" or bool(wanted.get("private")))
        return _Answer(200, {"url": f"{self.hub.url}/{'datasets/' if kind == 'dataset' else ''}{name}"})

    def _info(self, body: bytes, kind: str, name: str, revision: str = "main") -> _Answer:
        repo = self._repo(kind, name)
        head = repo.head(revision)
        if head is None:
            raise _refused(404, "RevisionNotFound", "Invalid rev id")
        siblings = [{"rfilename": path} for path in repo.files(head) or {}]
        return _Answer(200, {"id": name, "_id": "1", "sha": head, "private": repo.private, "siblings": siblings})

    def _auth_check(self, body: bytes, kind: str, name: str) -> _Answer:
        self._repo(kind, name)
        self._may_write(name)
        return _Answer(200, {})

    def _tree(self, body: bytes, kind: str, name: str, revision: str, folder: str = "") -> _Answer:
        files = self._repo(kind, name).files(revision)
        if files is None:
            raise _refused(404, "RevisionNotFound", "Invalid rev id")
        found = [self._entry(path, file) for path, file in files.items() if path.startswith(folder and f"{folder}/")]
        if folder and not found:
            raise _refused(404, "EntryNotFound", "Entry not found")
        return _Answer(200, found)

    def _entry(self, path: str, file: bytes | str) -> dict[str, Any]:
        if isinstance(file, bytes):
            return {"type": "file", "path": path, "size": len(file), "oid": _git_oid(file)}
        size = len(self.hub.large[file])
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{file}\nsize {size}\n".encode()
        lfs = {"oid": file, "size": size, "pointerSize": len(pointer)}
        return {"type": "file", "path": path, "size": size, "oid": _git_oid(pointer), "lfs": lfs}

    def _refs(self, body: bytes, kind: str, name: str) -> _Answer:
        branches = self._repo(kind, name).branches.items()
        found = [{"name": name, "ref": f"refs/heads/{name}", "targetCommit": oid} for name, oid in branches]
        return _Answer(200, {"branches": found, "converts": [], "tags": []})

    def _commits(self, body: bytes, kind: str, name: str, revision: str) -> _Answer:
        history = reversed(self._repo(kind, name).commits)
        base = {"authors": [{"user": "me"}], "date": "2026-01-01T00:00:00.000Z", "message": ""}
        return _Answer(200, [{**base, "id": oid, "title": title} for oid, title, _ in history])

    def _branch(self, body: bytes, kind: str, name: str, branch: str) -> _Answer:
        repo = self._repo(kind, name)
        self._may_write(name)
        if branch in repo.branches:
            return _Answer(409, {"error": "already exists"})
        repo.branches[branch] = repo.head(json.loads(body or b"{}").get("startingPoint", "main")) or ""
        return _Answer(200, {})

    def _preupload(self, body: bytes, kind: str, name: str, revision: str) -> _Answer:
        files = self._repo(kind, name).files(revision) or {}
        ignore = files.get(".gitignore", b"")
        ignored = ignore.decode().split() if isinstance(ignore, bytes) else []
        asked = json.loads(body)["files"]
        return _Answer(
            200,
            {
                "files": [
                    {
                        "path": one["path"],
                        "uploadMode": "lfs" if one["path"].endswith((".safetensors", ".parquet")) else "regular",
                        "shouldIgnore": one["path"] in ignored,
                    }
                    for one in asked
                ]
            },
        )

    def _batch(self, body: bytes, prefix: str, name: str) -> _Answer:
        self._may_write(name)
        objects = []
        for one in json.loads(body)["objects"]:
            oid, size = one["oid"], one["size"]
            actions = {
                "upload": {"href": f"{self.hub.url}/storage/{oid}?X-Signature=signed-secret", "header": {}},
                "verify": {"href": f"{self.hub.url}/api/verify", "header": {}},
            }
            objects.append({"oid": oid, "size": size, **({} if oid in self.hub.large else {"actions": actions})})
        return _Answer(200, {"transfer": "basic", "objects": objects})

    def _put(self, body: bytes, oid: str) -> _Answer:
        self.hub.num_puts[oid] += 1
        if hashlib.sha256(body).hexdigest() != oid:
            return _Answer(400, {"error": "checksum"})
        self.hub.large[oid] = body
        return _Answer(200, b"")

    def _verify(self, body: bytes) -> _Answer:
        return _Answer(200 if json.loads(body)["oid"] in self.hub.large else 404, {})

    def _commit(self, body: bytes, kind: str, name: str, branch: str) -> _Answer:
        repo = self._repo(kind, name)
        self._may_write(name)
        lines = [json.loads(line) for line in body.splitlines()]
        header = lines[0]["value"]
        if header.get("parentCommit") not in (None, repo.head(branch)):
            return _Answer(412, {"error": "A commit has happened since. Please refresh and try again."})
        files = dict(repo.files(branch) or {})
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.hub.large:
                    return _Answer(400, {"error": f"LFS pointer to a file that is not there: {value['path']}"})
                files[value["path"]] = value["oid"]
            else:
                files.pop(value["path"], None)
        oid = repo.commit(header["summary"], files, branch)
        return _Answer(200, {"commitUrl": f"{self.hub.url}/{name}/commit/{oid}", "commitOid": oid})

    def _resolve(self, body: bytes, prefix: str, name: str, revision: str, path: str) -> _Answer:
        kind = "dataset" if prefix else "model"
        files = self._repo(kind, name).files(revision)
        if files is None:
            raise _refused(404, "RevisionNotFound", "Invalid rev id")
        if path not in files:
            raise _refused(404, "EntryNotFound", "Entry not found")
        content = self.hub.content(kind, name, revision)[path]
        head = self._repo(kind, name).head(revision) or ""
        return _Answer(200, content, {"ETag": f'"{_git_oid(content)}"', "X-Repo-Commit": head})

    def _paths(self, body: bytes, kind: str, name: str, revision: str) -> _Answer:
        files = self._repo(kind, name).files(revision) or {}
        wanted = json.loads(body)["paths"] if body.startswith(b"{") else parse_qs(body.decode())["paths"]
        found = [self._entry(path, files[path]) for path in wanted if path in files]
        folders = [path for path in wanted if any(file.startswith(f"{path}/") for file in files)]
        return _Answer(200, found + [{"type": "directory", "path": path, "oid": "0" * 40} for path in folders])


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


_REPO = r"/api/(model|dataset)s/([^/]+/[^/]+)"
_ROUTES: list[tuple[str, str, Callable[..., _Answer]]] = [
    ("GET", "/api/whoami-v2", _Handler._whoami),
    ("POST", "/api/validate-yaml", _Handler._validate),
    ("POST", "/api/repos/create", _Handler._create),
    ("POST", "/api/verify", _Handler._verify),
    ("GET", _REPO, _Handler._info),
    ("GET", _REPO + "/revision/([^/]+)", _Handler._info),
    ("GET", _REPO + "/auth-check/write", _Handler._auth_check),
    ("GET", _REPO + "/tree/([^/]+)", _Handler._tree),
    ("GET", _REPO + "/tree/([^/]+)/(.+)", _Handler._tree),
    ("GET", _REPO + "/refs", _Handler._refs),
    ("GET", _REPO + "/commits/([^/]+)", _Handler._commits),
    ("POST", _REPO + "/branch/([^/]+)", _Handler._branch),
    ("POST", _REPO + "/preupload/([^/]+)", _Handler._preupload),
    ("POST", _REPO + "/commit/([^/]+)", _Handler._commit),
    ("POST", r"/(datasets/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", _Handler._batch),
    ("PUT", "/storage/([0-9a-f]{64})", _Handler._put),
    ("POST", _REPO + "/paths-info/([^/]+)", _Handler._paths),
    ("GET", "/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", _Handler._resolve),
    ("HEAD", "/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", _Handler._resolve),
]
