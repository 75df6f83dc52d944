"""Imports point down: the tree is parsed and held against the ranks of the design.

A module may import what stands before it in RANKS; inside one package there is no cycle. Inside
a function nothing is imported but what is heavy and marked `# late: why`, and of Pylon's own
modules only in cli/.
"""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent
RANKS = [name for line in """
    errors states units home failpoints
    options template config log role crypto
    nostr identity
    store relays backends wallets control
    provider customer
    host
    daemon watch api backup
    cli runner __main__
    """.splitlines() for name in line.split()]
RUNNER_MAY_IMPORT = {"pylon.errors"}


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted((ROOT / "pylon").rglob("*.py"))}


def imports_of(name):
    """(imported name, late?, source line) for every import of a module."""
    text = MODULES[name].read_text()
    tree, lines = ast.parse(text), text.splitlines()
    late = {id(node) for f in ast.walk(tree) if isinstance(f, (ast.FunctionDef, ast.Lambda))
            for node in ast.walk(f)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno} imports relatively"
            targets = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for target in targets:
            while target.startswith("pylon.") and target not in MODULES:
                target = target.rpartition(".")[0]      # a name of a module is that module
            yield target, id(node) in late, f"{name}:{node.lineno}: {lines[node.lineno - 1]}"


ALL = [(name, *found) for name in MODULES for found in imports_of(name)]
OWN = [found for found in ALL if found[1].startswith("pylon.")]


def test_every_module_has_a_rank():
    assert not [name for name in MODULES if name != "pylon" and name.split(".")[1] not in RANKS]


def test_imports_point_down():
    def rank(name):
        return RANKS.index(name.split(".")[1])
    assert not [line for name, target, late, line in OWN if rank(target) > rank(name)]


def test_no_cycles():
    graph = {name: set() for name in MODULES}
    for name, target, late, line in OWN:
        # A package's __init__ that re-exports is not a cycle with its own members.
        if not target == name and not name.startswith(target + "."):
            graph[name].add(target)
    TopologicalSorter(graph).prepare()


def test_function_level_imports_are_marked_and_ours_only_in_cli():
    late = [(name, target, line) for name, target, is_late, line in ALL if is_late]
    assert not [line for name, target, line in late if "# late: " not in line]
    assert not [line for name, target, line in late
                if target.startswith("pylon.") and name.split(".")[1] not in ("cli", "__main__")]


def test_runner_stands_alone():
    assert not [line for name, target, late, line in OWN if name.startswith("pylon.runner")
                and not target.startswith("pylon.runner") and target not in RUNNER_MAY_IMPORT]
