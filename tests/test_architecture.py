"""What keeps the house in order: who may import whom, how long a file may be, what the README promises."""

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import beam_runner
from pipeline.errors import UsageError
from pipeline.sources.scenes import source as scenes
from stages import index, page, score, search, train
from stages import serve as service
from stages.options import STAGES, parse, parser
from stages.training.settings import resolve
from tests.conftest import ROOT

MAX_LINES = 400
SHADOWING = {"datasets", "evaluate", "select", "queue", "types", "code", "io"}
FOLDERS = ("pipeline", "model", "stages", "tests", "bench")
FILES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))] + [ROOT / "beam_runner.py"]


def imports(path, top_level_only=False):
    """Modules that a file imports, as dotted names."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module


def test_pipeline_model_and_stages_keep_apart():
    forbidden = {
        "pipeline": ("model", "stages", "beam_runner"),
        "model": ("pipeline", "stages", "accelerate", "beam_runner"),
        "stages": ("beam_runner",),
    }
    for path in FILES:
        strangers = forbidden.get(path.relative_to(ROOT).parts[0], ())
        for name in imports(path):
            assert name.split(".")[0] not in strangers, f"{path} imports {name}"


def test_the_pipeline_imports_no_torch_and_never_vllm():
    code = "import sys, stages.driver, pipeline.engine.beam\nprint({'torch', 'vllm', 'datasets'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "set()"
    for path in (ROOT / "pipeline").rglob("*.py"):
        assert "vllm" not in {name.split(".")[0] for name in imports(path)}


def test_beam_runner_defines_no_dofn_and_imports_pipeline_alone():
    path = ROOT / "beam_runner.py"
    assert {name.split(".")[0] for name in imports(path)} <= {
        "pipeline",
        "stages",
        "os",
        "sys",
        "signal",
        "collections",
    }
    assert not [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)]


def test_files_are_short_and_shadow_nothing():
    for path in FILES:
        length = len(path.read_text("utf-8").splitlines())
        assert length <= MAX_LINES, f"{path} has {length} lines: make it two"
    for path in (ROOT / "stages").glob("*.py"):
        assert path.stem not in SHADOWING


def test_no_broad_except_and_nothing_unpickled():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            assert not (isinstance(node, ast.ExceptHandler) and node.type is None), f"{path}: bare except"
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                assert name not in ("eval", "exec", "pickle.load", "pickle.loads", "os.system"), f"{path}: {name}"
                if name == "torch.load":
                    assert "weights_only=True" in ast.unparse(node)


def test_every_test_folder_mirrors_the_tree():
    for path in (
        path for folder in ("pipeline", "model", "stages") for path in (ROOT / "tests" / folder).rglob("test_*.py")
    ):
        of = path.relative_to(ROOT / "tests")
        subject = ROOT / of.parent / f"{path.stem.removeprefix('test_')}.py"
        package = ROOT / of.parent / "__init__.py"
        assert subject.exists() or package.exists(), f"{path} tests no module"


def documented_commands():
    for document in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = document.read_text("utf-8").replace("\\\n", " ")
        of_program = (
            r"^(?:python|accelerate launch)(?: -\S+ \d| --cpu| --num_processes \d)* (\S+\.py) (.*?)(?:\s+#.*)?$"
        )
        for program, line in re.findall(of_program, text, re.MULTILINE):
            yield pytest.param(program, line, id=f"{document.name}: {program} {line[:50]}")


PROGRAMS = {
    "beam_runner.py": lambda line: parse(line),
    "stages/train.py": lambda line: (
        (given := train.parse(line)) and resolve(given.recipe, given.settings, **given.given)
    ),
    **{
        f"stages/{name}.py": lambda line, of=of: of.parser().parse_args(line)
        for name, of in (("score", score), ("index", index), ("search", search), ("page", page), ("serve", service))
    },
}


@pytest.mark.parametrize(("program", "line"), [param for param in documented_commands() if "bench/" not in param.id])
def test_commands_in_the_documents_parse(program, line):
    PROGRAMS[program](shlex.split(line))


def test_every_documented_option_exists():
    programs = (parser(), scenes.parser(), *(it.parser() for it in (train, score, index, search, page, service)))
    ours = {name for program in programs for action in program._actions for name in action.option_strings}
    for document in (ROOT / "README.md", ROOT / "docs" / "operating.md", ROOT / "docs" / "training.md"):
        others = r"`--vllm-args .*?`|`--(limit-mm|max-num|setup)[^`]*`"  # options of vLLM and of Beam
        text = re.sub(others, "", document.read_text("utf-8"), flags=re.DOTALL)
        for name in re.findall(r"(?<![\w-])--[a-z][a-z-]*(?![\w-])", text):
            known = {"--runner", "--help", "--cpu"}
            assert name in ours | known, f"{document.name} names {name}"


def test_make_targets_named_in_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make ([a-z-]+)", (ROOT / "README.md").read_text()):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_tree_in_the_readme_is_the_tree():
    tree = re.search(r"## The tree\n\n```\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL).group(1)
    parent = ROOT
    for line in tree.splitlines():
        name = line.split()[0]
        path = (parent if line.startswith("  ") else ROOT) / name
        assert path.exists(), f"the README's tree has {name}"
        if not line.startswith("  "):
            parent = path


def test_every_stage_has_a_program_and_help():
    from stages.driver import PROGRAMS

    assert set(PROGRAMS) == set(STAGES)
    for action in parser()._actions:
        assert action.help, action.option_strings


def test_an_unknown_stage_is_refused(capsys):
    assert beam_runner.run(["--stage", "capshuns"]) == 2
    assert "invalid choice" in capsys.readouterr().err
    with pytest.raises(UsageError):
        parse([])


def test_the_project_speaks_of_itself_alone():
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT, check=False).stdout.split()
    for name in listed:
        path = Path(ROOT / name)
        if path.suffix in (".py", ".md", ".toml", ".txt") and path.exists():
            text = path.read_text("utf-8")
            assert not re.search(r"(?<![\w.])/(work|root|farm)/", text), f"{name} names a path of one machine"
