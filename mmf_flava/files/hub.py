"""Files of repositories on the Hugging Face Hub, through huggingface_hub and its cache.

The environment variables of huggingface_hub apply: HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE. All
errors of huggingface_hub become a UserError here.
"""

import functools
import re
from pathlib import Path
from typing import Any

from mmf_flava.errors import FULL_DISK, NOT_WRITABLE, UserError
from mmf_flava.files.download_errors import DownloadError, RemoteFileNotFoundError

NAME = re.compile(r"([\w-][\w.-]*/)?[\w-][\w.-]*(@[\w./-]+)?")
LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


class HubRepository:
    """A repository of models, at one commit.

    The hub is asked for the commit of the revision when the first file is requested. If it cannot be reached, the files
    in the cache are used. Create instances with ``open_repository``.

    Args:
        name: model ID ``owner/name``, which may be followed by ``@revision`` (a branch, tag or commit).
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._id, _, self._revision = name.partition("@")
        self._is_pinned = False  # whether _revision is a commit
        self.error: UserError | None = None  # why the hub cannot be reached

    def get(self, file: str) -> Path | None:
        """Return the local path of a file; download it if it is not in the cache. None if there is no such file.

        Raises:
            RemoteFileNotFoundError: the repository or revision does not exist, or access to it is denied.
            DownloadError: the hub cannot be reached, and the cache has no file of the repository.
            UserError: the name of the repository is not valid, or the cache cannot be written to.
        """
        import huggingface_hub
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        if self._is_pinned:
            cached = huggingface_hub.try_to_load_from_cache(self._id, file, revision=self._revision)
            if cached is not None:
                return Path(cached) if isinstance(cached, str) else None  # or a marker of a file that does not exist
        elif not self.error and not self._exists(file):
            return None
        offline = self.error is not None
        try:
            path = Path(
                huggingface_hub.hf_hub_download(
                    self._id, file, revision=self._revision or None, local_files_only=offline
                )
            )
        except Exception as error:
            if isinstance(error, EntryNotFoundError) and (offline or not isinstance(error, LocalEntryNotFoundError)):
                return None
            raise _explain(error.__cause__ or error, self.name) from None
        # .../snapshots/<commit>/<file>: later files are of the same commit, also if the branch changes
        self._revision, self._is_pinned = path.parents[file.count("/")].name, True
        return path

    def _exists(self, file: str) -> bool:
        """Ask the hub for a file, without the retries of ``hf_hub_download``, which take half a minute."""
        from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
        from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

        try:
            url = hf_hub_url(self._id, file, revision=self._revision or None)
            get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        except (RevisionNotFoundError, HFValidationError) as error:
            raise _explain(error, self.name) from None
        except Exception as error:
            if _status(error) == 404 and not isinstance(error, RepositoryNotFoundError):
                return False
            self.error = _explain(error, self.name)  # the file may be in the cache
        return True


@functools.lru_cache
def open_repository(name: str) -> HubRepository:
    """Return the repository with a name. A process asks the hub once, so all its files are of the same commit."""
    return HubRepository(name)


def download_from_hub(name: str, *files: str) -> list[Path]:
    """Return the local paths of those files of a repository that exist.

    Raises:
        UserError: none of them exists because of an error; see ``HubRepository.get``.
    """
    repository = open_repository(name)
    found = [path for file in files if (path := repository.get(file)) is not None]
    if not found and repository.error is not None:
        open_repository.cache_clear()  # the next call asks the hub again
        raise repository.error
    return found


def _explain(error: Any, name: str) -> UserError:
    """Return the exception for an error of huggingface_hub. Its own messages may contain addresses with credentials."""
    from huggingface_hub import constants, errors

    status = _status(error)
    if isinstance(error, errors.GatedRepoError):
        return RemoteFileNotFoundError(
            f"{name}: access to this Hugging Face repository is restricted. Accept its terms on its page, and {LOG_IN}."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return RemoteFileNotFoundError(
            f"{name}: the Hugging Face repository has no such revision. Correct the branch, tag or commit after the @."
        )
    if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 403, 404):
        return RemoteFileNotFoundError(
            f"{name} was not found on the Hugging Face Hub, or it is private. Check the model ID; for a private "
            f"repository, {LOG_IN}."
        )
    if isinstance(error, errors.HFValidationError):
        return UserError(f"{name} is not a valid Hugging Face model ID. Expected owner/name or owner/name@revision.")
    if isinstance(error, errors.OfflineModeIsEnabled) or constants.HF_HUB_OFFLINE:
        return DownloadError(
            f"{name} is not in the Hugging Face cache {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE is set. Unset it, "
            f"or fill the cache with `hf download {name.partition('@')[0]}`."
        )
    if isinstance(error, OSError) and error.errno in FULL_DISK | NOT_WRITABLE:
        return UserError(
            f"{error.filename or constants.HF_HUB_CACHE} cannot be written ({error.strerror}). Free disk space, or set "
            "HF_HUB_CACHE to another folder."
        )
    reason = f"HTTP {status}" if status else type(error).__name__
    return DownloadError(
        f"{name}: the Hugging Face Hub cannot be reached ({reason}), and the files are not in its cache "
        f"{constants.HF_HUB_CACHE}. Check the network, or set the path of a local copy."
    )


def _status(error: Any) -> int | None:
    """Return the HTTP status of an error of huggingface_hub, or None if the hub did not answer."""
    return getattr(getattr(error, "response", None), "status_code", None)
