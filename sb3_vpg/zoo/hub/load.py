"""
``sb3-vpg load_from_hub``: load an agent from the hub without running any code of its author.

The zoo's own program asks for ``TRUST_REMOTE_CODE``, because it unpickles the files of a repository. This one reads and checks
them in a temporary folder first. Then the log folder gets the complete run; if anything fails, it stays as it was.
"""

import argparse
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from huggingface_sb3 import EnvironmentName
from rl_zoo3.utils import get_latest_run_id

from sb3_vpg.common.locks import claimed
from sb3_vpg.zoo.advice import command_line
from sb3_vpg.zoo.hub.flags import load_parser
from sb3_vpg.zoo.hub.local_run import make_run
from sb3_vpg.zoo.hub.remotes import open_hub, repository_id
from sb3_vpg.zoo.hub.repository import files_wanted, naming_repository, read_repository
from sb3_vpg.zoo.own_modules import check_registered
from sb3_vpg.zoo.registration import register


def load_from_hub() -> None:
    """Run the command ``load_from_hub`` with the arguments in ``sys.argv``."""
    args = load_parser().parse_args()
    args.env = EnvironmentName(args.env)
    register()
    check_registered(args.env.gym_id)
    repo_id = repository_id(args.algo, args.env, args.organization, args.repo_name)
    runs = Path(args.folder) / args.algo
    _check_replaceable(_run_folder(runs, args), args)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sb3-vpg-hub-")))
        files, new_run = folder / "files", folder / "run"
        stack.enter_context(naming_repository(repo_id, files, "if you trust its author, load it with --trust"))
        files.mkdir()
        open_hub(args.local_hub).fetch(repo_id, files_wanted(args.algo, args.env, args.trust), files)
        repository = read_repository(files, args.algo, args.env)
        make_run(repository, new_run, args.algo, args.env, args.trust, args.gym_packages)
        run = _put_in_place(new_run, runs, args)
    print(f"Loaded {repo_id} into {run}")
    if repository.dropped:
        print(f"Left out, because playing does not need it: {', '.join(name[:80] for name in repository.dropped)}")
    print(f"Watch it with: {command_line('enjoy', args.algo, args.env.gym_id, folder=args.folder)}")


def _run_folder(runs: Path, args: argparse.Namespace) -> Path:
    """Return the folder of the run ``--exp-id``, as in the zoo: 0 is the next number, -1 is ``runs`` itself."""
    if args.exp_id < 0:
        return runs
    number: int = args.exp_id or get_latest_run_id(str(runs), args.env) + 1
    return runs / f"{args.env}_{number}"


def _check_replaceable(run: Path, args: argparse.Namespace) -> None:
    """Raise ValueError if ``run`` exists, unless ``--force`` is given and it is the folder of a single run."""
    if not run.exists() and not run.is_symlink():
        return
    if not args.force:
        raise ValueError(f"{run} exists already: use --force to replace it, or --exp-id 0 for the next number")
    settings = [*run.glob("*/args.yml"), *run.glob("*_[0-9]*/*/args.yml")]
    if run.is_symlink() or settings != [run / args.env / "args.yml"]:
        raise ValueError(
            f"{run} is not the folder of a single run of {args.env}, and is not replaced: choose another --exp-id"
        )


def _put_in_place(new_run: Path, runs: Path, args: argparse.Namespace) -> Path:
    """Copy the run into the log folder, completely or not at all, and return its folder there."""
    parent = _run_folder(runs, args).parent
    with _created(parent), tempfile.TemporaryDirectory(prefix=f".{args.env}.", suffix=".part", dir=parent) as folder:
        new, old = Path(folder) / "new", Path(folder) / "old"
        shutil.copytree(new_run, new)
        while True:
            run = _run_folder(runs, args)
            try:
                run.mkdir()
                break
            except FileExistsError:
                # With --exp-id 0, another process has just taken this number, and the loop tries the next one
                if args.exp_id != 0:
                    # Not found if another process has just moved the old run away
                    with suppress(FileNotFoundError):
                        _set_aside(run, old, args)
        try:
            # Renaming replaces the empty folder, but not on Windows
            if os.name == "nt":  # pragma: no cover
                run.rmdir()
            new.rename(run)
        except BaseException:
            with suppress(OSError):
                # Remove the empty folder
                run.rmdir()
            if old.exists():
                old.rename(run)
            raise
    return run


@contextmanager
def _created(folder: Path) -> Iterator[None]:
    """Create the folder and its parents; if the block fails, remove those that did not exist before."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for path in missing:
            # Another process may have put something there
            with suppress(OSError):
                path.rmdir()
        raise


def _set_aside(run: Path, old: Path, args: argparse.Namespace) -> None:
    """Move a run away. Raise ValueError if it must not be replaced, or if it is being trained."""
    _check_replaceable(run, args)
    # Fails while a process trains in it
    with claimed(run):
        pass
    run.rename(old)
