"""The import direction of DESIGN.md, checked from the syntax trees."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "autoscale_ds"
LEVEL = {
    "errors": 0, "files": 0, "config": 0, "cli": 0, "run_paths": 0, "interrupts": 0, "yaml_text": 0,
    "corpus": 1, "mixture": 1, "laws": 1.1, "search": 1.2, "scores": 1.2, "speed": 1.2,
    "stream": 2, "models": 2, "objectives": 2,
    "skills": 2,
    "controllers": 3, "training": 3, "evaluation": 3, "sizing": 3,
    "sweep": 4, "report": 4, "study": 5,
}  # fmt: skip
# Rooms that do not know each other, whatever their levels: (importer, imported).
APART = [
    *[(room, "corpus") for room in ("mixture", "laws", "search", "scores", "speed")],
    *[("models", room) for room in ("stream", "mixture", "laws", "search", "scores", "speed")],
    *[("objectives", room) for room in ("corpus", "models", "stream", "mixture", "laws", "search")],
    ("stream", "models"), ("stream", "laws"), ("stream", "search"), ("stream", "scores"), ("stream", "speed"),
    ("scores", "search"), ("search", "scores"), ("speed", "search"), ("speed", "scores"),
]  # fmt: skip


def modules():
    return [path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem != "__init__"]


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        assert not isinstance(node, ast.ImportFrom) or node.level == 0, f"{path}: relative import"
        yield from named_in(node)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_its_level_downwards(path):
    own = room(path)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "autoscale_ds" and parts[1] in LEVEL:
            assert LEVEL[parts[1]] <= LEVEL[own], f"{own} imports {name}"
            assert (own, parts[1]) not in APART, f"{own} imports {name}"


def test_deepspeed_is_imported_by_the_engine_alone():
    users = [path for path in modules() if any(name.split(".")[0] == "deepspeed" for name in imports(path))]
    assert {user.parent for user in users} == {PACKAGE / "training/engine"}


def test_no_two_modules_import_each_other_in_a_circle():
    """Imports inside functions count too: one put there to avoid a circle only hides it."""
    files = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in modules()}
    files = {name.removesuffix(".__init__"): path for name, path in files.items()}
    waiting = {name: imported_modules(path, files) - {name} for name, path in files.items()}
    while free := {name for name, needed in waiting.items() if not needed}:
        waiting = {name: needed - free for name, needed in waiting.items() if name not in free}
    assert waiting == {}, "these modules are in a circle, or import one that is"


def imported_modules(path, files):
    """Return the modules of the package that a file imports, anywhere but under TYPE_CHECKING."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            node.body = []
    names = {name for node in ast.walk(tree) for name in named_in(node)}
    return {name if name in files else name.rpartition(".")[0] for name in names} & set(files)


def named_in(node):
    """Return what an import statement names; nothing for any other node."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


@pytest.mark.parametrize(
    "name", ["autoscale_ds", "autoscale_ds.corpus", "autoscale_ds.mixture", "autoscale_ds.sizing.plan"]
)
def test_importing_the_package_its_corpus_its_mathematics_or_its_planning_pulls_in_no_torch(name):
    code = f"import sys, {name}; sys.exit(any(m in sys.modules for m in ('torch', 'deepspeed', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_nothing_in_the_package_prints():
    for path in modules():
        calls = (n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call))
        printing = [c.lineno for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"]
        assert not printing or path.stem == "cli", f"{path}:{printing}"
