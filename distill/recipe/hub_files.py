"""Files of a repository on the Hub, at one commit."""

import os
from types import TracebackType
from typing import Any, Self

from distill.errors import RecipeError
from distill.models.hub_errors import download_refusal, hub_words, status_of
from distill.recipe.references import HubReference

TIMEOUT_S = 30.0


class HubFiles:
    """One commit of a repository on the Hub."""

    def __init__(self, reference: HubReference) -> None:
        self._reference = reference
        self._name = f"{reference.place}{f'@{reference.revision}' if reference.revision else ''}"
        self.commit = ""
        self.kind = reference.kind or ""

    def __enter__(self) -> Self:
        kinds = [self._reference.kind] if self._reference.kind else ["model", "dataset"]
        for number, kind in enumerate(kinds, start=1):
            try:
                about = self._about(kind)
            except Exception as error:
                if status_of(error) == 404 and number < len(kinds) and not _is(error, "RevisionNotFoundError"):
                    continue
                raise RecipeError(self._explained(error)) from None
            self.commit, self.kind = str(about.sha), kind
            return self
        raise AssertionError("the last kind returns or raises")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def read(self, path: str, max_bytes: int) -> bytes | None:
        """Return a file's content, or `None` if there is no such file.

        Raises:
            RecipeError: it is too large, or the Hub does not serve it.
        """
        from huggingface_hub import get_session, hf_hub_url
        from huggingface_hub.errors import EntryNotFoundError
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

        url = hf_hub_url(self._reference.repo, path, repo_type=self.kind, revision=self.commit)
        content = bytearray()
        try:
            with get_session().stream("GET", url, headers=build_hf_headers(), timeout=TIMEOUT_S) as answer:
                if answer.status_code >= 400:
                    answer.read()
                hf_raise_for_status(answer)
                for chunk in answer.iter_bytes():
                    content += chunk
                    if len(content) > max_bytes:
                        raise RecipeError(f"{self._name}: {path} is too large; at most {max_bytes:,} bytes are read.")
        except RecipeError:
            raise
        except EntryNotFoundError:
            return None
        except Exception as error:
            raise RecipeError(self._explained(error)) from None
        return bytes(content)

    def _about(self, kind: str) -> Any:
        from huggingface_hub import HfApi, constants

        if constants.is_offline_mode():
            raise RecipeError(f"{self._name}: HF_HUB_OFFLINE is set. Unset it, or give the path of a copy.")
        api = HfApi(library_name="distill")
        return api.repo_info(self._reference.repo, repo_type=kind, revision=self._reference.revision, timeout=TIMEOUT_S)

    def _explained(self, error: Exception) -> str:
        """Return a message for an error, with what to do."""
        if isinstance(error, RecipeError):
            return str(error)
        repo, kind = self._reference.repo, self._reference.kind
        home = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
        page = f"{home}/{'datasets/' if kind == 'dataset' else ''}{repo}"
        status = status_of(error)
        if _is(error, "GatedRepoError"):
            return f"{self._name}: the repository is gated. Ask for access on {page}, then `hf auth login`."
        if _is(error, "RevisionNotFoundError"):
            return (
                f"{self._name}: the repository has no revision {self._reference.revision!r}. Look at {page}/tree/main."
            )
        if status == 403 and hub_words(error):
            return f"{self._name}: {download_refusal(error)}"
        if status in (401, 403, 404) or _is(error, "HFValidationError"):
            return (
                f"{self._name}: no such repository on the Hub, or it is private. Check the spelling; for a private "
                "one, `hf auth login`."
            )
        if status is not None:
            return f"{self._name}: the Hub fails ({status}). Try again later, or give the path of a copy."
        why = type(error).__name__
        return f"{self._name}: the Hub cannot be reached ({why}). Check the network, or give the path of a copy."


def _is(error: Exception, name: str) -> bool:
    return any(cls.__name__ == name for cls in type(error).__mro__)
