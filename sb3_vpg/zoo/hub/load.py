"""
``sb3-vpg load_from_hub``: an agent from the hub, without running any code of its author.

The zoo's own program wants ``TRUST_REMOTE_CODE``, because it unpickles what it finds. This one looks at everything in a
temporary folder first; what then lands in the log folder is a whole run, or nothing.
"""

import argparse
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module
from pathlib import Path

from huggingface_sb3 import EnvironmentName
from rl_zoo3.utils import get_latest_run_id

from sb3_vpg.common.locks import claimed
from sb3_vpg.zoo.commands import command
from sb3_vpg.zoo.flags import base_parser
from sb3_vpg.zoo.hub.local_run import make_run
from sb3_vpg.zoo.hub.remotes import open_hub, repository_id
from sb3_vpg.zoo.hub.repository import files_wanted, named_as, read_repository
from sb3_vpg.zoo.own_modules import check_registered
from sb3_vpg.zoo.registration import register


def load_from_hub() -> None:
    """The command. Its arguments are ``sys.argv``."""
    args = _parser().parse_args()
    for module in args.gym_packages:
        import_module(module)
    register()
    check_registered(args.env.gym_id)
    repo_id = repository_id(args.algo, args.env, args.organization, args.repo_name)
    runs = Path(args.folder) / args.algo
    _check_free(_number(runs, args.env, args.exp_id), args)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sb3-vpg-hub-")))
        files, made = folder / "files", folder / "run"
        stack.enter_context(named_as(repo_id, files, "if you trust its author, load it with --trust"))
        files.mkdir()
        open_hub(args.local_hub).fetch(repo_id, files_wanted(args.algo, args.env, args.trust), files)
        found = read_repository(files, args.algo, args.env)
        make_run(found, made, args.algo, args.env, args.trust, args.gym_packages)
        run = _put_in_place(made, runs, args)
    print(f"Loaded {repo_id} into {run}")
    if found.dropped:
        print(f"Left out, because playing does not need it: {', '.join(name[:80] for name in found.dropped)}")
    print(f"Watch it with: {command('enjoy', args.algo, args.env.gym_id, folder=args.folder)}")


def _number(runs: Path, env_name: EnvironmentName, exp_id: int) -> Path:
    """:return: the folder of a run: of that number, 0 for the next; -1 for none, as in the zoo"""
    if exp_id < 0:
        return runs
    number: int = exp_id or get_latest_run_id(str(runs), env_name) + 1
    return runs / f"{env_name}_{number}"


def _check_free(run: Path, args: argparse.Namespace) -> None:
    """:raises ValueError: if there is something that is not to be replaced"""
    if not run.exists() and not run.is_symlink():
        return
    if not args.force:
        raise ValueError(f"{run} exists already: use --force to replace it, or --exp-id 0 for the next number")
    settings = [*run.glob("*/args.yml"), *run.glob("*_[0-9]*/*/args.yml")]
    if run.is_symlink() or settings != [run / args.env / "args.yml"]:
        raise ValueError(
            f"{run} is not the folder of a single run of {args.env}, and is not replaced: choose another --exp-id"
        )


def _put_in_place(made: Path, runs: Path, args: argparse.Namespace) -> Path:
    """:return: the run in the log folder, which is there as a whole or not at all"""
    beside = _number(runs, args.env, args.exp_id).parent
    with _made_for(beside), tempfile.TemporaryDirectory(prefix=f".{args.env}.", suffix=".part", dir=beside) as folder:
        new, old = Path(folder) / "new", Path(folder) / "old"
        shutil.copytree(made, new)
        while True:
            run = _number(runs, args.env, args.exp_id)
            try:
                run.mkdir()
                break
            except FileExistsError:
                # Somebody else has just begun the run that was the next
                if args.exp_id != 0:
                    # Unless that somebody has just moved it away
                    with suppress(FileNotFoundError):
                        _set_aside(run, old, args)
        try:
            # It takes the place of the empty one, but for Windows
            if os.name == "nt":  # pragma: no cover
                run.rmdir()
            new.rename(run)
        except BaseException:
            with suppress(OSError):
                # Claimed, and still empty
                run.rmdir()
            if old.exists():
                old.rename(run)
            raise
    return run


@contextmanager
def _made_for(folder: Path) -> Iterator[None]:
    """The folder is there for the block; if that fails, what had to be made for it is gone again."""
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for one in made:
            # Unless somebody else has put something there
            with suppress(OSError):
                one.rmdir()
        raise


def _set_aside(run: Path, old: Path, args: argparse.Namespace) -> None:
    """:raises ValueError: if it is not to be replaced, or if it is being trained"""
    _check_free(run, args)
    with claimed(run):
        pass
    run.rename(old)


def _parser() -> argparse.ArgumentParser:
    parser = base_parser("Load an agent from the Hugging Face hub into the log folder, running none of its author's code.")
    parser.add_argument(
        "--exp-id", type=int, default=0, help="number of the run (default: 0: the next; -1: no folder of its own)"
    )
    parser.add_argument("--force", action="store_true", help="replace the run of --exp-id if there is one")
    parser.add_argument(
        "--trust",
        action="store_true",
        help="unpickle the model and its vec_normalize.pkl, which runs whatever code their author has put there",
    )
    return parser
