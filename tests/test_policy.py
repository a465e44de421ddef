"""Rules about the code itself: what may import what, how long things get, that every command explains itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import commands

from sg3cli.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "sg3cli"
MODULES = sorted(PACKAGE.rglob("*.py"))
TOP_LEVEL = {"sg3cli", "tests", "examples", "pyproject.toml", "README.md", "LICENSE"}

OWNERS = {  # foreign library -> the only places that import it
    "av": ("video/",),
    "c2pa": ("pipeline/credentials.py",),
    "ray": ("pipeline/batch/on_ray.py",),
    "fsspec": ("pipeline/batch/store.py",),
    "cryptography": ("pipeline/certificates.py",),
    "face_alignment": ("faces/fan_detector.py",),
    "lpips": ("metrics/perceptual.py",),
    "matplotlib": ("drawing/figure.py",),
    "sklearn": ("metrics/linear_models.py",),
    "open_clip": ("latents/text_model.py",),
    "typer": ("cli/",),
    "rich": ("console.py", "cli/"),
    "requests": ("weights/store.py",),
    "ninja": ("nets/ops/build.py",),
    "platformdirs": ("places.py",),
    "jinja2": ("evaluation/report_page.py",),
    "filelock": ("weights/store.py", "nets/ops/build.py", "project.py"),
}
LIGHT = (  # need neither torch nor av when they are imported
    *("cli/", "__init__.py", "project.py", "files.py", "errors.py", "settings.py", "console.py", "time_ranges.py"),
    *("latents/edits.py", "latents/projection.py", "video/__init__.py", "video/color.py", "video/image_sequence.py"),
    *("pipeline/__init__.py", "pipeline/provenance.py", "pipeline/partial_render.py"),
    *("weights/store.py", "weights/registry.py", "weights/bundle.py", "weights/direction_file.py"),
)
HEAVY = {"torch", "av", "cv2", "scipy", "face_alignment", "lpips"}
BARE = {"torch", "numpy", "scipy", "safetensors"}  # all that a GPU machine must have for `nets` and `training`


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf8"))


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports_at_load(tree: ast.Module) -> Iterator[str]:
    """Imports that run when the module is imported: not in functions, not for type checkers."""
    for node in tree.body:
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        if not typing_only and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            kept = [n for n in ast.walk(node) if isinstance(n, ast.Import | ast.ImportFrom)]
            inside = {id(n) for f in ast.walk(node) if isinstance(f, ast.FunctionDef) for n in ast.walk(f)}
            for statement in kept:
                if id(statement) not in inside:
                    yield from imports(statement)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_sizes(path: Path) -> None:
    text = path.read_text(encoding="utf8")
    assert text.count("\n") <= 450, f"{name_of(path)} is too long to read"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 60, f"{name_of(path)}: {node.name} is too long"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_each_foreign_library_has_one_owner(path: Path) -> None:
    for module in imports(tree_of(path)):
        library = module.partition(".")[0]
        if library in OWNERS:
            assert name_of(path).startswith(OWNERS[library]), f"{name_of(path)} imports {library}"
        assert library != "click", "typer brings its own"
        if module.startswith("cv2.dnn"):
            assert name_of(path).startswith("faces/")


def test_the_floors_hold_and_there_are_no_circles() -> None:
    """The contracts of import-linter in `pyproject.toml`."""
    pytest.importorskip("importlinter")
    script = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)  # it sets up logging
    assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize("path", [p for p in MODULES if name_of(p).startswith(("nets/", "training/"))], ids=name_of)
def test_a_bare_gpu_machine_can_train(path: Path) -> None:
    """Other libraries are imported inside of functions."""
    foreign = {module.partition(".")[0] for module in imports_at_load(tree_of(path))} - sys.stdlib_module_names
    assert foreign <= BARE | {"sg3cli"}


@pytest.mark.parametrize("path", [p for p in MODULES if name_of(p).startswith(LIGHT)], ids=name_of)
def test_light_modules_load_nothing_heavy(path: Path) -> None:
    assert not {module.partition(".")[0] for module in imports_at_load(tree_of(path))} & HEAVY


def test_light_modules_stay_light_through_what_they_import() -> None:
    names = [name_of(p).removesuffix(".py").removesuffix("/__init__").replace("/", ".") for p in MODULES]
    light = [n for n, p in zip(names, MODULES, strict=True) if name_of(p).startswith(LIGHT)]
    script = f"import sys\nfor name in {light}: __import__('sg3cli.' + name)\nprint(sorted(set(sys.modules) & {HEAVY}))"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_print_no_pickle_no_helpers_drawer(path: Path) -> None:
    assert path.name not in ("utils.py", "helpers.py", "misc.py", "common.py")
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("print", "input", "eval", "exec", "pickle.load", "pickle.loads"), name_of(path)
            if called == "np.load":
                assert not any(k.arg == "allow_pickle" and ast.unparse(k.value) != "False" for k in node.keywords)
            if called == "torch.load":
                assert any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords)


WRITES = {"write_text", "write_bytes", "save", "savez", "savez_compressed", "save_file", "savefig", "imwrite"}
SAVERS = {"np", "torch", "save_file", "cv2"}  # whose `save` writes a file; a trainer's own `save` ends in one of these
SAFE = ("atomic_path(", "TemporaryDirectory(")  # names that cannot be foreseen, made where nothing was
WRITTEN_ELSEWHERE = {  # (module, what is written): into a temporary file that the function was given or made before
    ("video/segments.py", "temp.open('wb')"),
    ("training/data/prepare.py", "(part / name).write_bytes(data)"),
}


def writes(call: ast.Call) -> bool:
    """Whether a call makes or replaces a file by its name (not: appends to one)."""
    called = ast.unparse(call.func)
    owner, _, name = called.rpartition(".")
    if any(ast.unparse(keyword) == "opener=not_through_a_link" for keyword in call.keywords):
        return False
    if name == "open" and owner not in ("av", "os", "webbrowser"):
        mode = call.args[1 if called == "open" else 0 :][:1]
        return bool(mode) and any(f"'{kind}" in ast.unparse(mode[0]) for kind in "wx")
    return name in WRITES and (name != "save" or owner in SAVERS)


def unsafe_writes(node: ast.AST, safe: bool = False) -> Iterator[str]:
    """What is written under `node` outside of a `with` that makes the file."""
    if isinstance(node, ast.With):
        safe = safe or any(word in ast.unparse(item) for item in node.items for word in SAFE)
    if isinstance(node, ast.Call) and not safe and writes(node):
        yield ast.unparse(node)
    for child in ast.iter_child_nodes(node):
        yield from unsafe_writes(child, safe)


@pytest.mark.parametrize("path", [p for p in MODULES if name_of(p) != "files.py"], ids=name_of)
def test_files_are_written_through_the_one_function_that_follows_no_link(path: Path) -> None:
    found = {(name_of(path), what) for what in unsafe_writes(tree_of(path))}
    assert found <= WRITTEN_ELSEWHERE


def test_the_rule_on_writing_finds_what_it_is_about() -> None:
    bad = "with open(p, 'wb') as f: np.save(f, x)\np.write_text('x')\nsave_file(a, p)\nwith p.open('w') as f: pass"
    assert len(list(unsafe_writes(ast.parse(bad)))) == 5
    good = "with atomic_path(p) as t, t.open('w') as f: f.write('x')\np.open('a')\nopen(p)\nself.save(x)"
    assert not list(unsafe_writes(ast.parse(good)))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(tree_of(path)) or path.stat().st_size == 0


def test_the_top_level_is_the_agreed_one() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    tops = {line.partition("/")[0] for line in listed.stdout.splitlines()}
    assert {top for top in tops if not top.startswith(".")} <= TOP_LEVEL


def test_every_command_and_option_has_help() -> None:
    seen = set()
    for name, node in commands(app):
        seen.add(name)
        assert node.help, f"sg3 {name} has no help"
        for parameter in node.params:
            assert getattr(parameter, "help", None), f"sg3 {name}: {parameter.name} has no help"
    assert {"run", "align", "invert", "finetune", "edit", "render", "inspect", "doctor"} <= seen
    assert {f"models {word}" for word in ("list", "pull", "verify", "path", "remove")} <= seen


@pytest.mark.parametrize("module", ["sg3cli.pipeline.render", "sg3cli.pipeline.finetune", "sg3cli.pipeline.preview"])
def test_stages_do_without_the_compiler_of_torch(module: str) -> None:
    """Importing `torch._dynamo` takes more than a second, and no command compiles."""
    script = f"import sys, {module}; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0
