"""Who may import whom, and what an import may cost."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import pkgutil
import py_compile
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("search_spaces", "decoders", "nas", "retrain", "benchmarks", "cli")
"""Each may import itself and those to its left."""
EXPORTING = (
    *("search_spaces", "decoders", "nas", "nas.data", "nas.data.readers"),
    *("retrain", "retrain.networks", "retrain.pictures", "retrain.report"),
)


def modules(package: str) -> list[str]:
    """Names of a package and of all modules below it."""
    folder = ROOT / package
    names = []
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


def source(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def imported(module: str) -> Iterator[tuple[int, str]]:
    """(line, name) of everything a module imports anywhere in it: in functions and for the type checker too."""
    for node in ast.walk(ast.parse(source(module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: write imports out in full"
            assert node.module is not None
            yield node.lineno, node.module


def loaded_after(code: str) -> set[str]:
    """Names of the modules that a fresh interpreter has loaded after running `code`."""
    program = f"{code}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


ALL_MODULES = [(package, module) for package in PACKAGES for module in modules(package)]


def test_every_package_has_modules() -> None:
    assert {package for package, _ in ALL_MODULES} == set(PACKAGES)
    assert len(ALL_MODULES) > 50


@pytest.mark.parametrize(("package", "module"), ALL_MODULES, ids=[module for _, module in ALL_MODULES])
def test_imports_point_one_way(package: str, module: str) -> None:
    forbidden = PACKAGES[PACKAGES.index(package) + 1 :]
    wrong = [f"{module}:{line}: {name}" for line, name in imported(module) if name.split(".")[0] in forbidden]
    assert wrong == []


@pytest.mark.parametrize("package", PACKAGES)
def test_all_modules_are_found_by_the_import_system(package: str) -> None:
    found = [package, *(m.name for m in pkgutil.walk_packages([str(ROOT / package)], f"{package}."))]
    assert sorted(found) == modules(package), "a folder without __init__.py?"


WITH_TORCH = {
    f"search_spaces.{name}"
    for name in ("modules", "synchronized", "module_protocols", "lateral_inhibition", "smoothing", "factorized")
}


def test_spaces_and_decoders_are_free_of_torch() -> None:
    names = [name for p in ("search_spaces", "decoders") for name in modules(p) if name not in WITH_TORCH]
    assert len(names) > 10
    assert "torch" not in loaded_after("\n".join(f"import {name}" for name in names))


def test_the_packages_themselves_cost_neither_torch_nor_numpy() -> None:
    loaded = loaded_after(f"import {', '.join(PACKAGES)}")
    assert set(PACKAGES) <= loaded
    assert loaded.isdisjoint({"torch", "numpy", "networkx", "matplotlib", "optuna"})


def users_of_networkx() -> set[str]:
    return {module for _, module in ALL_MODULES for _, name in imported(module) if name.split(".")[0] == "networkx"}


def test_only_descriptions_of_a_space_use_networkx() -> None:
    assert "search_spaces.graph" in users_of_networkx()
    assert {module.split(".")[0] for module in users_of_networkx()} == {"search_spaces"}


def test_a_forward_pass_walks_no_graph() -> None:
    loaded = loaded_after(
        "import torch\n"
        "from nas.supernet.network import Supernet\n"
        "from retrain.networks.settings import NetworkConfig\n"
        "from retrain.networks import build\n"
        "from search_spaces.published import auto_deeplab\n"
        "from search_spaces.space import load\n"
        "image = torch.zeros(1, 3, 65, 65)\n"
        "Supernet(load('autodeeplab-tiny'), 3).eval()(image)\n"
        "build(auto_deeplab(), 3, NetworkConfig(filter_multiplier=1, aspp_channels=4)).eval()(image)\n"
    )
    assert "retrain.networks.deeplab" in loaded
    assert loaded.isdisjoint(users_of_networkx() | {"networkx"})


EXPORTS = [(package, name) for package in EXPORTING for name in importlib.import_module(package).__all__]


@pytest.mark.parametrize("package", EXPORTING)
def test_exports_are_listed_once_and_completely(package: str) -> None:
    module = importlib.import_module(package)
    assert len(module.__all__) > 2
    assert len(set(module.__all__)) == len(module.__all__)
    assert set(module.__all__) <= set(dir(module))


def test_exports_are_the_imports_for_the_type_checker() -> None:
    assert "Genotype" in importlib.import_module("search_spaces").__all__
    assert importlib.import_module("retrain.report").__all__ == ["RunRecord", "make_report", "read_run", "write_report"]


def test_a_package_without_source_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "from search_spaces.lazy import lazy_exports\n__getattr__, __dir__, __all__ = lazy_exports(__name__)\n"
    (tmp_path / "sourceless.py").write_text(text, encoding="utf-8")
    py_compile.compile(str(tmp_path / "sourceless.py"), str(tmp_path / "sourceless.pyc"))
    (tmp_path / "sourceless.py").unlink()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=r"sourceless has no source .*: install it with its .py files"):
        importlib.import_module("sourceless")


@pytest.mark.parametrize(("package", "name"), EXPORTS, ids=[".".join(export) for export in EXPORTS])
def test_every_export_resolves_and_is_documented(package: str, name: str) -> None:
    value = getattr(importlib.import_module(package), name)
    if inspect.isclass(value) or inspect.isfunction(value):
        own = value.__dict__.get("__doc__") if inspect.isclass(value) else value.__doc__
        assert own and not own.startswith(f"{name}("), "has no docstring of its own (dataclasses make one up)"


@pytest.mark.parametrize("package", EXPORTING)
def test_no_export_is_hidden_by_a_submodule_of_its_name(package: str) -> None:
    module = importlib.import_module(package)
    for submodule in pkgutil.iter_modules(module.__path__):
        importlib.import_module(f"{package}.{submodule.name}")  # sets an attribute of that name
    assert [name for name in module.__all__ if inspect.ismodule(getattr(module, name))] == []


def test_an_unknown_name_is_an_attribute_error() -> None:
    for package in EXPORTING:
        with pytest.raises(AttributeError, match=r"nothing_of_this_name"):
            importlib.import_module(package).nothing_of_this_name  # noqa: B018


@pytest.mark.parametrize(("package", "module"), ALL_MODULES, ids=[module for _, module in ALL_MODULES])
def test_every_module_says_what_it_is_for(package: str, module: str) -> None:
    tree = ast.parse(source(module).read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{module} has no docstring"
