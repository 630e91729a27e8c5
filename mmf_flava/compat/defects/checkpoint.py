"""Patch of the git information that MMF stores in checkpoints."""

from types import SimpleNamespace
from typing import Any

from mmf_flava.compat.patch import patch, source_contains, wrap


@patch(
    "mmf.utils.checkpoint",
    what="checkpoint.save_git_details (on by default) supports a detached HEAD; no git details are saved if git fails",
    why="saving the first checkpoint fails if MMF's git repository has a detached HEAD, has no commit, or belongs to "
    "another user (git: dubious ownership)",
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
    """Return the repository, or None if git cannot read it. A detached HEAD gets the branch name HEAD."""
    from git.exc import GitCommandError  # GitPython is installed if MMF has opened a repository

    try:
        repository.git.rev_parse("HEAD")
    except GitCommandError:
        return None
    if not repository.head.is_detached:
        return repository
    # git also prints HEAD as the branch name
    return SimpleNamespace(active_branch=SimpleNamespace(name="HEAD"), head=repository.head, git=repository.git)
