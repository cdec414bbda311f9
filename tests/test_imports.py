"""Imports point one way, and what a command loads before it knows what to do is light. Read from the source."""

import ast
from pathlib import Path

import pytest

import lmft

PACKAGE = Path(lmft.__file__).parent
HEAVY = {"torch", "lightning", "transformers", "datasets", "tokenizers", "pyarrow", "torchmetrics", "huggingface_hub"}

# What is loaded before a config has been composed and checked.
SHELLS = {
    *("", "__main__", "train", "evaluate", "predict", "prepare"),
    *("arguments", "cli", "config", "errors", "mistakes", "redaction", "run", "run_folder", "sweep", "usage"),
    *("checkpoint_files", "continuation", "contradictions", "durable", "hub", "implied", "models.folders", "run_log"),
    *("schema", "stopping", "trainer_options", "trust"),
}
COMMANDS = {"train", "evaluate", "predict", "prepare"}

# part -> the parts, or single modules of parts, that it may know
MAY_IMPORT = {
    "objectives": set(),
    "reporting": {""},
    # Live of reporting.progress is where training writes its newest numbers.
    "training": {"checkpoint_files", "durable", "errors", "reporting.progress", "run_folder", "stopping", "trust"},
    # The LightningModule owns its optimizer, its steps and its scores: the parts of training that it has to know.
    "models": {
        "durable",
        "errors",
        "hub",
        "schema",
        *(f"training.{each}" for each in ("nonfinite", "optimizer", "scores", "step")),
    },
    "data": {"errors", "hub", "objectives.base", "stopping"},
    "hub": {"errors"},
    "options": {"config", "data", "errors", "models", "objectives", "schema", "trainer_options", "trust"},
    "parts": {"data", "errors", "models", "objectives", "options", "reporting", "schema", "training", "trust"},
    "fit": {
        "data",
        "errors",
        "models",
        "parts",
        "reporting",
        "run",
        "run_folder",
        "run_log",
        "schema",
        "trainer_options",
        "training",
    },
    **{
        shell: {"cli", "contradictions", "errors", "fit", "options", "run", "run_folder", "trust"} for shell in COMMANDS
    },
}


def modules():
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip("."): path
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def imported(nodes):
    """(module, names that are imported from it) of every import among these nodes."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            yield str(node.module), [alias.name for alias in node.names]


def own(nodes, known):
    """The modules of this package among what is imported, by their names inside it."""
    for module, names in imported(nodes):
        if module.split(".")[0] == "lmft":
            name = module.removeprefix("lmft").lstrip(".")
            inner = {f"{name}.{each}".lstrip(".") for each in names} & known.keys()
            yield from inner or {name}


def at_import(tree):
    """Nodes that run when the module is imported: not those inside functions."""
    waiting = list(tree.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)


MODULES = modules()
TREES = {name: ast.parse(path.read_text("utf-8")) for name, path in MODULES.items()}


def part_of(module):
    return module.split(".")[0]


def is_allowed(module, wanted):
    part = part_of(module)
    return part_of(wanted) == part or wanted in MAY_IMPORT[part] or part_of(wanted) in MAY_IMPORT[part] - {""}


def test_every_module_is_spoken_for():
    parts = {part_of(module) for module in MODULES}
    assert parts <= SHELLS | MAY_IMPORT.keys()
    assert "utils" not in {name for module in MODULES for name in module.split(".")}


@pytest.mark.parametrize("module", [m for m in MODULES if part_of(m) in MAY_IMPORT])
def test_imports_point_one_way(module):
    wanted = set(own(ast.walk(TREES[module]), MODULES))
    assert wanted <= MODULES.keys()
    assert {name for name in wanted if not is_allowed(module, name)} == set()


@pytest.mark.parametrize("module", sorted(SHELLS))
def test_a_shell_imports_only_what_is_light(module):
    nodes = list(at_import(TREES[module]))
    assert not {name.split(".")[0] for name, _ in imported(nodes)} & {*HEAVY, "numpy"}
    assert {name for name in own(nodes, MODULES) if not SHELLS & {name, part_of(name)}} == set()


def test_one_lightning():
    for name, tree in TREES.items():
        roots = {module.split(".")[0] for module, _ in imported(ast.walk(tree))}
        assert not roots & {"pytorch_lightning", "lightning_fabric"}, name


def test_the_rules_can_be_broken():
    """Each kind of import is seen: plain, from a package, from a module, inside a function."""
    tree = ast.parse("import lmft.data.store\nfrom lmft import hub\nfrom lmft.data import text")
    tree.body += ast.parse("def f():\n    from lmft.fit import fit").body
    assert set(own(ast.walk(tree), MODULES)) == {"data.store", "hub", "data.text", "fit"}
    assert set(own(at_import(tree), MODULES)) == {"data.store", "hub", "data.text"}
    assert not is_allowed("models.base", "data.store")
    assert not is_allowed("data.corpus", "objectives.mlm")
    assert not is_allowed("objectives.mlm", "data.noise")
    assert is_allowed("data.corpus", "objectives.base") and is_allowed("fit", "training.metrics")
