"""Translate Hub errors into messages that say what to do and hold no secrets, and retry transient ones.

Covers exceptions of `huggingface_hub`, `httpx` and `hf_xet`. What only the user can fix becomes a `UserError`; what the
same command may overcome later becomes a `StageError`.
"""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from distill.core.redaction import redact
from distill.errors import DistillError, StageError, UserError

T = TypeVar("T")
NUM_TRIES = 5
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
CONFLICT = (409, 412)
"""Somebody else has written to the repository in the meantime."""
MAX_WAIT_S = 600.0
GO_ON = "What was uploaded is kept, nothing half-done is visible, and the same command goes on from there."
_ABOUT_TOKEN = re.compile(
    r"permission|\brights?\b|\btokens?\b|authori[sz]|authenticat|credential|\bscopes?\b|\broles?\b|log(?:ged)? ?in\b"
    r"|(?:write|read).{0,3}(?:access|only)|not (?:allowed|permitted)|\bmembers?\b|\bforbidden\b",
    re.IGNORECASE,
)
_ABOUT_MORE = re.compile(
    r"storage|quota|\blimits?\b|exceed|billing|payment|\bpaid\b|subscri|upgrade|credits?\b|\bterms\b|\bpolic(?:y|ies)\b"
    r"|disabled|suspend|\bbanned\b|flagged|abuse|malware|\bgated\b|restricted|awaiting|review|region|country",
    re.IGNORECASE,
)
LOGIN = "`hf auth login`, or set HF_TOKEN to a token with write access (https://huggingface.co/settings/tokens)"


@contextmanager
def hub_errors(what: str) -> Iterator[None]:
    """Translate errors of the Hub into `DistillError`s.

    Args:
        what: the subject of the messages, such as `org/name`.
    """
    try:
        yield
    except DistillError:
        raise
    except Exception as error:
        raise translated(error, what) from None


def translated(error: BaseException, what: str) -> DistillError:
    """Return the `DistillError` for an error."""
    import httpx

    status = status_of(error)
    if status == 401:
        return UserError(f"push: {what}: the Hub does not accept the token (401). Get a new one: {LOGIN}.")
    if status == 403 and is_about_token(words := hub_words(error)):
        return UserError(
            f"push: {what}: the token may not write there (403): {_sentence(words)} Use another token ({LOGIN}), or "
            "another push.repo."
        )
    if status == 403:
        said = _sentence(words) or "it gives no reason."
        return UserError(f"push: {what}: the Hub refuses it (403): {said} {GO_ON}")
    if status == 404:
        return UserError(
            f"push: {what}: there is no such repository, or the token may not see it (404). "
            f"Check push.repo, or use another token ({LOGIN})."
        )
    if status == 429:
        return StageError(f"push: {what}: the Hub's rate limit still applies (429). {GO_ON}")
    if status in CONFLICT:
        return StageError(f"push: {what}: somebody else is writing there ({status}). {GO_ON}")
    if status is not None and status >= 500:
        return StageError(f"push: {what}: the Hub fails ({status}). {GO_ON}")
    if status is not None or isinstance(root_of(error), ValueError):
        return UserError(f"push: {what}: the Hub refuses it{f' ({status})' if status else ''}: {_said(error)}")
    root = root_of(error)
    broke = any(isinstance(one, httpx.TransportError) for one in _chain(error))
    kind = "the connection to the Hub broke" if broke else "the upload failed"
    return StageError(f"push: {what}: {kind} ({type(root).__name__}: {_said(root)}). {GO_ON}")


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status behind an error; `None` if there was no response."""
    for one in _chain(error):
        response = getattr(one, "response", None)
        status = getattr(response, "status_code", None)
        if isinstance(status, int):
            return status
    return None


def is_gated(error: BaseException) -> bool:
    """Return whether access to a repository must be requested first."""
    return any(cls.__name__ == "GatedRepoError" for one in _chain(error) for cls in type(one).__mro__)


def is_transient(error: BaseException) -> bool:
    """Return whether a retry may succeed."""
    import httpx

    status = status_of(error)
    if status is not None:
        return status in TRANSIENT
    return any(isinstance(one, httpx.TransportError | ConnectionError | TimeoutError) for one in _chain(error))


def root_of(error: BaseException) -> BaseException:
    """Return the original error behind an upload's own."""
    *_, last = _chain(error)
    return last


def patiently(call: Callable[[], T], sleep: Callable[[float], None] | None = None) -> T:
    """Call a function, and retry with a delay after transient errors."""
    for number in range(1, NUM_TRIES):
        try:
            return call()
        except Exception as error:
            if not is_transient(error):
                raise
            (sleep or time.sleep)(wait_s(error, number))
    return call()


def wait_s(error: BaseException, number: int) -> float:
    """Return the seconds to wait before the next try: as the Hub says, else doubling each time."""
    for one in _chain(error):
        headers: Any = getattr(getattr(one, "response", None), "headers", {})
        after = str(headers.get("Retry-After", ""))
        if after.isdecimal():
            return min(float(after), MAX_WAIT_S)
    return float(2 ** (number - 1))


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        yield at
        at = at.__cause__ or at.__context__


def download_refusal(error: BaseException) -> str | None:
    """Return why the Hub refused a download, as the end of a sentence; `None` if it has not responded."""
    status, words = status_of(error), hub_words(error)
    if status is None:
        return None
    if status == 429:
        return "the Hub's rate limit is reached (429). Wait a while, then run the same command again."
    if status >= 500:
        return f"the Hub fails ({status}). Run the same command again later."
    if status == 401:
        return "the Hub does not accept the token (401). Get a new one: `hf auth login`, or HF_TOKEN."
    said = _sentence(words) or "it gives no reason."
    advice = " Log in with a token that may read it: `hf auth login`, or HF_TOKEN." if is_about_token(words) else ""
    return f"the Hub refuses it ({status}): {said}{advice}"


def is_about_token(words: str) -> bool:
    """Return whether a 403 is about the token, and not about storage, money, terms or a disabled repository."""
    return _ABOUT_TOKEN.search(words) is not None and _ABOUT_MORE.search(words) is None


def hub_words(error: BaseException) -> str:
    """Return the Hub's own message on one line; empty if there is none."""
    # The exception's own text is not used: `huggingface_hub` adds a guess about the token to that of every 403.
    for one in _chain(error):
        said = getattr(one, "server_message", None) or _body_words(getattr(one, "response", None))
        if said:
            return _in_a_line(said)
    return ""


def _body_words(response: Any) -> str:
    """Return the message in a response's header or body."""
    try:
        if header := response.headers.get("X-Error-Message"):
            return str(header)
        body = response.json()
    except Exception:  # no response, one that was not read, or not JSON
        return ""
    words = (body.get("message") or body.get("error")) if isinstance(body, dict) else ""
    return words if isinstance(words, str) else ""


def _said(error: BaseException) -> str:
    """Return the Hub's message, or else the error's first line."""
    return hub_words(error) or _in_a_line(str(error).strip().partition("\n")[0]) or type(error).__name__


def _in_a_line(text: str) -> str:
    """Return text on one line, shortened, and without URL queries, which may hold signatures."""
    return " ".join(word.partition("?")[0] if "://" in word else word for word in redact(str(text)).split())[:300]


def _sentence(words: str) -> str:
    return words if not words or words.endswith((".", "!", "?")) else f"{words}."
