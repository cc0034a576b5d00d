"""The rules of the tree: who may import whom, what may not be written anywhere, what the documents promise."""

import ast
import functools
import importlib
import json
import re
import shlex
import subprocess
import sys

import pytest

from leccr import STAGES
from stages import options as stage_options
from tests.conftest import ROOT, clean_environment

SHADOWING = {"datasets", "evaluate", "select", "queue", "types", "code", "io"}
HEAVY = {"torch", "transformers", "apache_beam", "faiss", "datasets", "accelerate", "matplotlib", "fastapi"}
LIBRARIES = [path for folder in ("pipeline", "model") for path in (ROOT / folder).rglob("*.py")]
LIBRARIES += (ROOT / "stages").glob("*/*.py")
PRODUCT = [*LIBRARIES, *(ROOT / "stages").glob("*.py"), ROOT / "beam_runner.py", ROOT / "leccr.py"]
FILES = [*PRODUCT, *(path for folder in ("tests", "bench") for path in (ROOT / folder).rglob("*.py"))]
PROGRAMS = [path.stem for path in sorted((ROOT / "stages").glob("*.py")) if "__main__" in path.read_text("utf-8")]
OPTIONS_IN = {"README", "operating", "training", "search", "tutorial", "howto"}
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@functools.cache
def tree_of(path):
    return ast.parse(path.read_text("utf-8"))


def imports(path):
    """Modules that a file imports, wherever in the file, as dotted names; of `from a import b` also `a.b`."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_imports_point_one_way():
    forbidden = {
        "pipeline": {"model", "stages", "beam_runner", "vllm"},
        "model": {"pipeline", "stages", "accelerate", "beam_runner"},
        "stages": {"beam_runner", "leccr"},
    }
    programs = {f"stages.{name}" for name in PROGRAMS}
    for path in PRODUCT:
        names = set(imports(path))
        wrong = {name.split(".")[0] for name in names} & forbidden.get(path.relative_to(ROOT).parts[0], set())
        assert not wrong, f"{path} imports {wrong}"
        assert not names & programs, f"{path} imports a program: {names & programs}"


def test_nothing_dangerous_is_called_and_no_name_is_shadowed():
    for path in FILES:
        for node in ast.walk(tree_of(path)):
            assert not (isinstance(node, ast.ExceptHandler) and node.type is None), f"{path}: bare except"
            match node:
                case ast.Call(func=ast.Name(id="eval" | "exec" as name)):
                    pytest.fail(f"{path} calls {name}")
                case ast.Call(func=ast.Attribute(value=ast.Name(id="pickle" | "os" as module), attr=name)):
                    assert (module, name) not in (("pickle", "load"), ("pickle", "loads"), ("os", "system")), path
                case ast.Call(func=ast.Attribute(value=ast.Name(id="torch"), attr="load"), keywords=given):
                    assert "weights_only=True" in {ast.unparse(keyword) for keyword in given}, f"{path} may unpickle"
    assert not SHADOWING & {path.stem for path in (ROOT / "stages").iterdir()}


@pytest.mark.parametrize("program", ["beam_runner.py", "leccr.py", *(f"stages/{name}.py" for name in PROGRAMS)])
def test_help_imports_nothing_heavy(program):
    """So that it answers within a second on any machine."""
    code = (
        "import runpy, sys\nsys.argv = sys.argv[1:]\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end: status = end.code\n"
        f"print('STATUS', status or 0, *({HEAVY!r} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(ROOT / program), "--help"]
    environment = clean_environment(PYTHONPATH=str(ROOT))
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.startswith("usage:")
    assert done.stdout.splitlines()[-1] == "STATUS 0"


def documented_commands():
    launcher = r"(?:python|accelerate launch)(?: -\S+ \d| --cpu| --num_processes \d)*"
    for document in DOCUMENTS:
        text = document.read_text("utf-8").replace("\\\n", " ")
        for program, line in re.findall(rf"^{launcher} (\S+\.py) (.*?)(?:\s+#.*)?$", text, re.MULTILINE):
            if not program.startswith(("bench/", "examples/")):
                yield pytest.param(program, line, id=f"{document.name}: {program} {line[:50]}")
        for command, line in re.findall(r"^leccr (\S+) (.*?)(?:\s+#.*)?$", text, re.MULTILINE):
            folder = "" if line.startswith("-") else "--output "
            program = f"stages/{command}.py" if command not in STAGES else "beam_runner.py"
            line = line if command not in STAGES else f"--stage {command} {folder}{line}"
            if (command, folder) != ("update", "--output "):  # of a folder of pictures
                yield pytest.param(program, line, id=f"{document.name}: leccr {command} {line[:50]}")


@pytest.mark.parametrize(("program", "line"), list(documented_commands()))
def test_commands_in_the_documents_parse(program, line):
    if program == "beam_runner.py":
        options, _ = stage_options.parse(shlex.split(line))
        for argument in getattr(options, "vllm_args", ()):
            if "{" in argument:
                json.loads(argument)  # JSON that lost its quotes
        return
    module = importlib.import_module(program.removesuffix(".py").replace("/", "."))
    parse = module.parse if hasattr(module, "parse") else module.parser().parse_intermixed_args
    parse(shlex.split(line))


def test_every_documented_option_exists():
    parsers = [stage_options.parser(), *(importlib.import_module(f"stages.{name}").parser() for name in PROGRAMS)]
    scenes = importlib.import_module("pipeline.sources.scenes.__main__")
    known = {
        name for parser in (*parsers, scenes.parser()) for action in parser._actions for name in action.option_strings
    }
    known |= {"--runner", "--cpu", "--version"}  # of Beam, accelerate, leccr
    others = r'--vllm-args ".*?"\n|`--(limit-mm|max-num|setup)[^`]*`'  # of vLLM and of Beam
    for document in (document for document in DOCUMENTS if document.stem in OPTIONS_IN):
        text = re.sub(others, "", document.read_text("utf-8"), flags=re.DOTALL)
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*(?![\w-])", text))
        assert named <= known, f"{document.name}: {named - known}"


def test_the_readme_names_what_there_is():
    readme, makefile = (ROOT / "README.md").read_text("utf-8"), (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"make ([a-z-]+)", readme):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    tree = re.search(r"## The tree\n\n```\n(.*?)```", readme, re.DOTALL).group(1)
    parent, listed = ROOT, set()
    for line in tree.splitlines():
        path = (parent if line.startswith("  ") else ROOT) / line.split()[0]
        assert path.exists(), f"the README's tree has {path}"
        listed.add(path)
        parent = parent if line.startswith("  ") else path
    for folder in ("pipeline", "model", "stages"):
        packages = {path.parent for path in (ROOT / folder).glob("*/__init__.py")}
        assert packages <= listed, f"the README's tree lacks {packages - listed}"


def test_no_file_names_a_path_of_one_machine():
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT, check=False).stdout.split()
    for name in listed:
        path = ROOT / name
        if path.suffix in (".py", ".md", ".toml", ".txt", ".html") and path.exists():
            assert not re.search(r"(?<![\w.])/(work|root|farm)/", path.read_text("utf-8")), name
