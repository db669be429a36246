"""Which files of the project a module runs: its imports, followed wherever they stand in the code."""

from __future__ import annotations

import ast
from pathlib import Path


def imported_files(root: Path, file: Path) -> set[Path]:
    """Files of `stages` and `containers` that `file` imports, at any depth of nesting."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            path = root.joinpath(*name.split(".")).with_suffix(".py")
            if name.split(".")[0] in {"stages", "containers"} and path.is_file():
                found.add(path)
    return found


def closure(root: Path, *files: Path) -> list[str]:
    """`files` and everything they import, directly or not, as sorted paths relative to `root`."""
    todo, seen = [*files], set()
    while todo:
        current = todo.pop()
        if current not in seen:
            seen.add(current)
            todo += imported_files(root, current)
    return sorted(str(path.relative_to(root)) for path in seen)
