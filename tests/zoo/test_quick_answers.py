"""Help and usage errors of our own commands come before anything but the standard library is imported."""

import json
import subprocess
import sys
from dataclasses import dataclass

import pytest

from sb3_vpg.zoo.cli import COMMANDS

OWN = [name for name, command in COMMANDS.items() if command.parser]
HUB = "--env CartPole-v1 -orga me"
ANSWERS = {
    "": (0, "usage: sb3-vpg COMMAND"),
    "--version": (0, "torch"),
    "trian": (2, "did you mean 'train'"),
    **{f"{name} --help": (0, f"usage: sb3-vpg {name} [-h]") for name in OWN},
    "evaluate --nonsense -h": (0, "flags of sb3-vpg:"),
    **{f"{name} --nonsense": (2, f"sb3-vpg {name}: error: ") for name in OWN},
    "evaluate --nonsense --traceback": (2, "unrecognized arguments: --nonsense"),
    "evaluate --algo pop": (2, "argument --algo: invalid choice: 'pop'"),
    "evaluate --vec-env threads": (2, "argument --vec-env: invalid choice: 'threads'"),
    "evaluate -n 0": (2, "must be at least 1, but is 0"),
    "evaluate --seed one": (2, "argument --seed: invalid int value: 'one'"),
    "evaluate --gym-packages torch --nonsense": (2, "unrecognized arguments: --nonsense"),
    "export --algo ppo": (2, "ppo is an algorithm of the zoo, and only agents of vpg, maskable_vpg"),
    "export --algo pop": (2, "argument --algo: invalid choice: 'pop'"),
    "export --format tflite": (2, "argument --format: invalid choice: 'tflite'"),
    "export -n -1": (2, "must be at least 0, but is -1"),
    "enjoy --onnx a.onnx --help": (0, "usage: sb3-vpg enjoy --onnx FILE [-h]"),
    "enjoy --onnx a.onnx --device cpu": (2, "unrecognized arguments: --device cpu"),
    "benchmark -n x": (2, "argument -n/--n-eval-episodes"),
    "best_entry": (2, "the following arguments are required: --storage"),
    "best-entry --storage": (2, "argument --storage: expected one argument"),
    "compare": (2, "the following arguments are required: --envs"),
    "compare --envs CartPole-v1 --engine mpi": (2, "argument --engine: invalid choice: 'mpi'"),
    "compare --envs CartPole-v1 --seeds 0": (2, "argument --seeds: must be at least 1, but is 0"),
    "compare --envs CartPole-v1 -j 0": (2, "argument -j/--n-jobs: must be at least 1, but is 0"),
    "compare --envs CartPole-v1 --threshold 475": (2, "must be ENV=VALUE, where VALUE is a number, but is '475'"),
    "push_to_hub --env CartPole-v1": (2, "the following arguments are required: -orga/--organization"),
    f"push_to_hub {HUB} --load-checkpoint x": (2, "argument --load-checkpoint: invalid int value: 'x'"),
    f"load_from_hub {HUB} --exp-id x": (2, "argument --exp-id: invalid int value: 'x'"),
    "train --vec-env threads": (2, "argument --vec-env: invalid choice: 'threads'"),
    "train --checkpoint-freq -1": (2, "must be at least 0, but is -1"),
    "train --exp-id 0": (2, "must be at least 1, but is 0"),
    "enjoy --vec-env subproc": (2, "argument --vec-env: invalid choice: 'subproc'"),
}
"""From the arguments to the exit code and a part of the text, which is on stdout if the code is 0, else on stderr."""
PROGRAM = """
import sys
before = set(sys.modules)
import contextlib, io, json
from sb3_vpg.zoo.cli import main
answers = {}
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            code = main(arguments.split())
        except SystemExit as stop:
            code = stop.code
    names = {name.partition(".")[0] for name in sys.modules.keys() - before} - sys.stdlib_module_names
    answers[arguments] = {"code": code, "out": out.getvalue(), "err": err.getvalue(), "imported": sorted(names)}
print(json.dumps(answers))
"""


@dataclass(frozen=True)
class Answer:
    """
    :param code: exit code
    :param out: text on stdout
    :param err: text on stderr
    :param imported: packages that were imported so far, without those of the standard library
    """

    code: int
    out: str
    err: str
    imported: list[str]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    """The answers of one new process, by arguments."""
    command = [sys.executable, "-c", PROGRAM, json.dumps(list(ANSWERS))]
    folder = tmp_path_factory.mktemp("empty")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not list(folder.iterdir())
    return {arguments: Answer(**answer) for arguments, answer in json.loads(done.stdout).items()}


@pytest.mark.parametrize("arguments", ANSWERS, ids=lambda arguments: arguments.replace(" ", "_") or "bare")
def test_the_answer_comes_before_heavy_imports(arguments: str, answers: dict[str, Answer]) -> None:
    code, text = ANSWERS[arguments]
    answer = answers[arguments]
    assert answer.code == code
    said, silent = (answer.out, answer.err) if code == 0 else (answer.err, answer.out)
    assert text in said
    assert silent == ""
    assert answer.imported == ["sb3_vpg"]


def test_every_program_of_ours_has_a_parser() -> None:
    assert {name for name, command in COMMANDS.items() if command.target.startswith("sb3_vpg.")} == set(OWN)
