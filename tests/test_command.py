"""The wrapper of command lines, and that every command line of the project has it."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from mmf_flava.command import ArgumentParser, command, integer, report_user_errors
from mmf_flava.errors import UserError

ROOT = Path(__file__).parents[1]
# started by other scripts, not by users
INTERNAL = {"tests/faults/instrumented_run.py"}
# start the main function of another module
DELEGATING = {"benchmarks/device/__main__.py": "benchmarks/device/command.py"}


def is_script(path: Path) -> bool:
    return '__name__ == "__main__"' in path.read_text() or path.name == "__main__.py"


def find_command_lines() -> list[str]:
    folders = [ROOT / name for name in ("mmf_flava", "benchmarks", "tests/faults")]
    names = [str(path.relative_to(ROOT)) for folder in folders for path in folder.rglob("*.py") if is_script(path)]
    return sorted({DELEGATING.get(name, name) for name in names} - INTERNAL)


COMMAND_LINES = find_command_lines()


def test_command_lines_are_found():
    assert {"mmf_flava/embed.py", "mmf_flava/data/show/__main__.py", "benchmarks/step.py"} <= set(COMMAND_LINES)


@pytest.mark.parametrize("name", COMMAND_LINES)
def test_command_line_has_the_wrapper(name):
    tree = ast.parse((ROOT / name).read_text())
    mains = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main"]
    if name == "tests/faults/__main__.py":  # runs the main functions of its modules
        return
    assert [ast.unparse(decorator) for decorator in mains[0].decorator_list] == ["command"]
    calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert "ArgumentParser" in calls or name == "mmf_flava/clip_benchmark.py"
    assert "argparse.ArgumentParser" not in calls
    if name not in DELEGATING.values():
        guard = next(node for node in tree.body if isinstance(node, ast.If) and "__main__" in ast.unparse(node.test))
        assert ast.unparse(guard.body[-1]) == "sys.exit(main())"


@pytest.mark.parametrize("name", [name for name in COMMAND_LINES if name.startswith("mmf_flava/")])
def test_invalid_arguments_are_one_line_with_code_2(name, capsys):
    module = importlib.import_module(name.removesuffix(".py").replace("/", "."))
    words = ["eval", "--seed"] if "clip_benchmark" in name else ["--no-such-option"]
    assert module.main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("mmf_flava: ") and error.count("\n") == 1
    assert "`python -m mmf_flava" in error or "clip_benchmark" in name


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UserError("a.yaml: is empty. Fill it."), 2, "mmf_flava: a.yaml: is empty. Fill it.\n"),
        (KeyboardInterrupt(), 130, "mmf_flava: interrupted\n"),
        (PermissionError(13, "Permission denied", "/x"), 2, "mmf_flava: /x: permission denied. "),
        (OSError(28, "No space left on device"), 2, "mmf_flava: the disk is full, "),
        (NotADirectoryError(20, "Not a directory", "/x/y"), 2, "mmf_flava: /x/y: not a directory. "),
    ],
)
def test_errors_of_users_have_an_exit_code(capsys, error, code, message):
    @command
    def main(arguments):
        raise error

    assert main([]) == code
    text = capsys.readouterr().err
    assert text.startswith(message) and text.count("\n") == 1
    with pytest.raises(SystemExit) as end, report_user_errors():
        raise error
    assert end.value.code == code


@pytest.mark.parametrize("error", [ValueError("a defect"), OSError(5, "Input/output error"), SystemExit(3)])
def test_other_errors_are_raised(error):
    @command
    def main(arguments):
        raise error

    with pytest.raises(type(error)):
        main([])


def test_exit_code_of_main():
    assert command(lambda arguments: None)([]) == 0
    assert command(lambda arguments: len(arguments))(["a"]) == 1
    assert command(lambda arguments, extra: extra)([], extra=7) == 7


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "two", "", "9" * 30, "nan", "1e3"])
def test_integers_outside_their_range_are_errors(text):
    parser = ArgumentParser(prog="program")
    parser.add_argument("--batch-size", type=integer(1))
    with pytest.raises(UserError, match=rf"^--batch-size: must be an integer .*, got '{text}'\. `program --help`"):
        parser.parse_args([f"--batch-size={text}"])


def test_integers_in_their_range():
    assert integer(0)("0") == 0 and integer(1)(" 12 ") == 12 and integer(-3, 5)("-3") == -3
    with pytest.raises(Exception, match="must be an integer from 1 to 5, got '6'"):
        integer(1, 5)("6")


def test_closed_pipe_ends_without_a_message():
    code = """
import sys
from mmf_flava.command import command
@command
def main(arguments):
    for number in range(100000):
        print(number)
sys.exit(main())
"""
    done = subprocess.run(
        f"{sys.executable} -c '{code}' 2>error | head -1; cat error; rm error",
        shell=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "0\n", done.stdout
