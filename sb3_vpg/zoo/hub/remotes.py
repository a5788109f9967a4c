"""
Two places where agents are shared: the Hugging Face hub, or a local folder that replaces it.

Both hold the same files. The list of a repository's files is checked before any is fetched, and only files that will be read
are fetched.
"""

from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path, PurePosixPath

from huggingface_hub import HfApi
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # offered lazily, but not exported
from huggingface_sb3 import EnvironmentName, ModelName, ModelRepoId

from sb3_vpg.common.atomic_files import atomic_write
from sb3_vpg.exceptions import RefusedFileError
from sb3_vpg.zoo.algorithms import ALGORITHMS

_MOST_FILES = 1000


def repository_id(algo: str, env_name: EnvironmentName, organization: str, name: str | None) -> str:
    """
    :param algo: name on the command line
    :param env_name: of the environment
    :param organization: or user
    :param name: of the repository; None for the zoo's default, ALGO-ENV
    :return: organization and name
    :raises ValueError: for an algorithm of the zoo, and for names that no repository can have, such as paths
    """
    if algo not in ALGORITHMS:
        raise ValueError(
            f"--algo {algo} belongs to the zoo, whose files on the hub contain pickles; share it with the zoo's programs: "
            f"python -m rl_zoo3.push_to_hub, python -m rl_zoo3.load_from_hub. Here: {', '.join(ALGORITHMS)}"
        )
    repo_id = ModelRepoId(organization, ModelName(algo, env_name) if name is None else name)
    if repo_id.count("/") != 1:
        raise ValueError(f"{repo_id!r} is not an organization and a name; give both without slashes: -orga YOU -name NAME")
    validate_repo_id(repo_id)
    return str(repo_id)


def open_hub(local: Path | None) -> "HuggingFaceHub | LocalHub":
    """Return the Hugging Face hub, or the folder ``local`` if one is given."""
    return HuggingFaceHub() if local is None else LocalHub(local)


class HuggingFaceHub:
    """The Hugging Face hub. The account is that of ``hf auth login`` or of the environment variable HF_TOKEN."""

    def push(self, folder: Path, repo_id: str, message: str, stale: Iterable[str]) -> str:
        """
        Upload files to a repository, which is created if it does not exist.

        :param folder: with the files, and nothing else
        :param repo_id: organization and name
        :param message: of the commit
        :param stale: names of files to delete, which an earlier push may have left
        :return: address of the repository
        """
        api = HfApi()
        url = api.create_repo(repo_id=repo_id, exist_ok=True)
        api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=message, delete_patterns=list(stale))
        return str(url)

    def fetch(self, repo_id: str, limits: Mapping[str, int], folder: Path) -> None:
        """
        Download files of a repository.

        :param repo_id: organization and name
        :param limits: the files to fetch if they exist, with the largest size allowed for each, in bytes
        :param folder: where to write them
        :raises RefusedFileError: for a file that is too large, is a link, or whose path leaves the repository
        """
        api = HfApi()
        info = api.model_info(repo_id, files_metadata=True)
        names = _checked(repo_id, {file.rfilename: file.size for file in info.siblings or ()}, limits)
        # Of the commit whose list was checked
        api.snapshot_download(repo_id, revision=info.sha, local_dir=folder, allow_patterns=names)


class LocalHub:
    """
    A folder with a folder for each repository, ``ORGANIZATION/NAME``.

    :param folder: may be shared with other users
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def push(self, folder: Path, repo_id: str, message: str, stale: Iterable[str]) -> str:
        """See ``HuggingFaceHub``. Files of other names are kept, as on the hub."""
        target = self.folder / repo_id
        for name in stale:
            (target / name).unlink(missing_ok=True)
        for path in sorted(folder.iterdir()):
            with atomic_write(target / path.name) as file:
                file.write(path.read_bytes())
        return str(target)

    def fetch(self, repo_id: str, limits: Mapping[str, int], folder: Path) -> None:
        """
        See ``HuggingFaceHub``.

        :raises ValueError: if there is no such repository
        """
        repository = self.folder / repo_id
        if not repository.is_dir():
            raise ValueError(f"{self.folder} has no repository {repo_id}; push_to_hub puts one there")
        sizes: dict[str, int | None] = {}
        # Two folders, and one file more than is allowed
        for path in islice([repository.parent, repository, *repository.rglob("*")], _MOST_FILES + 3):
            if path.is_symlink():
                raise RefusedFileError(f"{path} is a link, which may lead anywhere; refused")
            if path.is_file():
                sizes[path.relative_to(repository).as_posix()] = path.stat().st_size
        for name in _checked(repo_id, sizes, limits):
            with (repository / name).open("rb") as file:
                content = file.read(limits[name] + 1)
            check_size(f"{repo_id}: {name}", len(content), limits[name])
            (folder / name).write_bytes(content)


def _checked(repo_id: str, sizes: Mapping[str, int | None], limits: Mapping[str, int]) -> list[str]:
    """Return the names of the files to fetch. Raise RefusedFileError for paths that leave the repository and wrong sizes."""
    if len(sizes) > _MOST_FILES:
        raise RefusedFileError(f"{repo_id} has more than {_MOST_FILES} files; an agent has about ten; refused")
    for name in sizes:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
            raise RefusedFileError(f"{repo_id} has a file {name[:200]!r}, whose name leaves the repository; refused")
    wanted = [name for name in limits if name in sizes]
    for name in wanted:
        size = sizes[name]
        if size is None:
            raise RefusedFileError(f"{repo_id}: {name} has no known size; refused")
        check_size(f"{repo_id}: {name}", size, limits[name])
    return wanted


def check_size(what: object, size: int, limit: int) -> None:
    """Raise RefusedFileError if a file is larger than allowed."""
    if size > limit:
        raise RefusedFileError(f"{what} has {size:,} bytes, more than {limit:,}; refused")
