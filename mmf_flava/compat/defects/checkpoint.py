"""The git details in MMF's checkpoints."""

from types import SimpleNamespace
from typing import Any

from mmf_flava.compat.patch import patch, source_contains, wrap


@patch(
    "mmf.utils.checkpoint",
    what="checkpoint.save_git_details (on by default) supports a detached HEAD, and is skipped if git fails",
    why="the first checkpoint ends with a traceback if MMF's checkout has a detached HEAD, has no commit, or belongs "
    "to another user (git: dubious ownership)",
    since="MMF 1.0.0rc1",
    until="MMF handles a detached HEAD and git's errors",
    needed=source_contains("active_branch", "Checkpoint._get_vcs_fields"),
)
def git_details(module: Any) -> None:
    @wrap(module.Checkpoint, "__init__")
    def __init__(original: Any, self: Any, trainer: Any) -> None:
        original(self, trainer)
        if self.git_repo is not None:
            self.git_repo = _readable(self.git_repo)


def _readable(repository: Any) -> Any:
    """Return the repository, with a stand-in for the branch of a detached HEAD; None if git cannot read it."""
    from git.exc import GitCommandError  # available wherever MMF has opened a repository

    try:
        repository.git.rev_parse("HEAD")
    except GitCommandError:
        return None
    if not repository.head.is_detached:
        return repository
    # git itself prints HEAD instead of a branch's name
    return SimpleNamespace(active_branch=SimpleNamespace(name="HEAD"), head=repository.head, git=repository.git)
