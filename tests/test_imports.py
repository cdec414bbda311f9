"""Imports point downwards and never in a circle, and what a command loads first is light. Read from the source."""

import ast
from pathlib import Path

import pytest

import lmft

PACKAGE = Path(lmft.__file__).parent
HEAVY = {
    *("torch", "lightning", "transformers", "datasets", "tokenizers", "pyarrow", "torchmetrics", "huggingface_hub"),
    *("numpy", "optuna"),
}
# Each file of commands/ has a module of its name that starts it: `python -m lmft.train`.
COMMANDS = sorted(path.stem for path in (PACKAGE / "commands").glob("[!_]*.py"))
# From the ground to the top. A room may import from the floors below its own; not from its neighbours on it.
FLOORS = (
    {"", "errors"},  # "": lmft/__init__.py
    {"objectives", "system"},
    {"reporting"},
    {"config"},
    {"data", "models", "runs"},
    {"sweeps", "breakdown"},
    {"cli", "training", "watching", "comparison", "inspection", "probing"},
    {"modules", "preflight"},
    {"assembly"},
    {"verification"},
    {"commands"},
    {"api", "__main__", *COMMANDS},
)
DOORS = ("__main__", *COMMANDS)


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
    """Nodes that run when the module is imported: not those inside functions, nor those for type checkers."""
    waiting = list(tree.body)
    while waiting:
        node = waiting.pop()
        yield node
        is_for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if not is_for_types and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)


MODULES = modules()
TREES = {name: ast.parse(path.read_text("utf-8")) for name, path in MODULES.items()}
IMPORTS = {name: set(own(ast.walk(tree), MODULES)) for name, tree in TREES.items()}


def room_of(module):
    return module.split(".")[0]


def floor_of(module):
    return next(number for number, rooms in enumerate(FLOORS) if room_of(module) in rooms)


def points_down(module, wanted):
    return room_of(module) == room_of(wanted) or floor_of(wanted) < floor_of(module)


def packages_of(module):
    """The packages that are loaded with a module: `data` and `data.sources` with `data.sources.files`."""
    parts = module.split(".")
    return {".".join(parts[:count]) for count in range(1, len(parts))} & MODULES.keys()


def circle(graph, start):
    """A way from a module back to itself; None where there is none."""
    waiting = [(start, [start])]
    seen = set()
    while waiting:
        module, way = waiting.pop()
        for wanted in graph.get(module, ()):
            if wanted == start:
                return [*way, wanted]
            if wanted not in seen:
                seen.add(wanted)
                waiting.append((wanted, [*way, wanted]))
    return None


def test_every_room_has_a_floor():
    rooms = {room_of(module) for module in MODULES}
    assert rooms == set().union(*FLOORS)
    assert "utils" not in {name for module in MODULES for name in module.split(".")}


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_downwards(module):
    assert IMPORTS[module] <= MODULES.keys()
    assert {wanted for wanted in IMPORTS[module] if not points_down(module, wanted)} == set()


@pytest.mark.parametrize("module", MODULES)
def test_no_imports_in_a_circle(module):
    assert circle(IMPORTS, module) is None


def test_what_a_command_loads_before_its_config_is_checked_is_light():
    waiting = [*DOORS, *(f"commands.{path.stem}" for path in (PACKAGE / "commands").glob("[!_]*.py"))]
    seen = set()
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        nodes = list(at_import(TREES[module]))
        assert not {name.split(".")[0] for name, _ in imported(nodes)} & HEAVY, module
        waiting += [*own(nodes, MODULES), *packages_of(module)]
    assert {"cli.command", "config.load", "runs.run"} <= seen


def test_lightning_is_imported_by_its_one_name_alone():
    for name, tree in TREES.items():
        roots = {module.split(".")[0] for module, _ in imported(ast.walk(tree))}
        assert not roots & {"pytorch_lightning", "lightning_fabric"}, name


def test_the_rules_can_be_broken():
    """Each kind of import is seen: plain, from a package, from a module, inside a function."""
    tree = ast.parse("import lmft.data.store\nfrom lmft.system import hub\nfrom lmft.data.sources import decoding")
    tree.body += ast.parse("def f():\n    from lmft.commands.train import fit").body
    assert set(own(ast.walk(tree), MODULES)) == {"data.store", "system.hub", "data.sources.decoding", "commands.train"}
    assert set(own(at_import(tree), MODULES)) == {"data.store", "system.hub", "data.sources.decoding"}
    assert not points_down("models.head", "data.store")
    assert not points_down("objectives.mlm", "data.schedule.noise")
    assert not points_down("training.step", "modules.base")
    assert points_down("data.corpus", "objectives.base") and points_down("commands.train", "assembly")
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}, "a") == ["a", "b", "c", "a"]
