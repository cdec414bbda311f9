"""What is installed works without the checkout: the package, and the YAML files in it."""

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from lmft.config.load import compose
from lmft.config.shipped import config_dir
from lmft.config.trainer_options import LOGGERS

CHECKOUT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]


def run(*command, **options):
    return subprocess.run([sys.executable, "-m", *map(str, command)], capture_output=True, text=True, **options)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built offline where hatchling is installed; else pip gets it."""
    folder = tmp_path_factory.mktemp("wheel")
    at_hand = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    built = run("pip", "wheel", CHECKOUT, "--no-deps", "--disable-pip-version-check", "-w", folder, *at_hand)
    if "No matching distribution found for hatchling" in built.stderr:
        pytest.skip("neither hatchling nor a registry to get it from")
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("lightning_lmft-*.whl")
    return path


def test_the_wheel_holds_the_package_and_its_yaml_files(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"lmft"}
    parts = {part for name in names for part in name.split("/")}
    assert not [part for part in parts if part in ("tests", "__pycache__") or part.startswith(("test_", "conftest"))]
    shipped = {name.removeprefix("lmft/conf/") for name in names if name.startswith("lmft/conf/")}
    assert shipped == {path.relative_to(config_dir()).as_posix() for path in config_dir().rglob("*.yaml")}
    modules = {name.removeprefix("lmft/") for name in names if name.endswith(".py")}
    assert modules == {path.relative_to(CHECKOUT / "lmft").as_posix() for path in (CHECKOUT / "lmft").rglob("*.py")}


def test_installed_elsewhere_it_shows_its_config(wheel, tmp_path):
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    installing = ("install", "--no-deps", "--no-index", "--disable-pip-version-check", "--target", site, wheel)
    installed = run("pip", *installing)
    assert installed.returncode == 0, installed.stderr
    assert (site / "bin" / "lmft").is_file()
    options = {"cwd": elsewhere, "env": {**os.environ, "PYTHONPATH": str(site)}}
    where = subprocess.run(
        [sys.executable, "-c", "import lmft; print(lmft.__file__)"], capture_output=True, text=True, **options
    )
    assert where.stdout.strip() == str(site / "lmft" / "__init__.py")
    shown = run("lmft.train", "model=roberta", "--cfg", "job", "--resolve", **options)
    assert shown.returncode == 0 and not shown.stderr, shown.stderr
    assert yaml.safe_load(shown.stdout) == compose(["model=roberta"])
    assert list(elsewhere.iterdir()) == []


# what users are told to install


def told():
    """(file, requirement) of each `pip install …` in what is shipped."""
    for path in [*(CHECKOUT / "lmft").rglob("*.py"), *config_dir().rglob("*.yaml")]:
        text = path.read_text("utf-8").replace("{package.replace('_', '-')}", "tensorboard")
        yield from ((path.name, wanted) for wanted in re.findall(r"pip install \"?([\w\[\]<>=.,-]+)", text))


def test_nobody_is_told_to_install_a_package_by_a_name_that_is_anothers():
    extras = {wanted for name, group in PROJECT["optional-dependencies"].items() if name != "dev" for wanted in group}
    extras |= {re.split(r"[<>=\[]", wanted)[0] for wanted in extras}
    extras |= {f"{PROJECT['name']}[{name}]" for name in PROJECT["optional-dependencies"]}
    assert "lightning-lmft[peft]" in extras
    found = list(told())
    assert len(found) >= 5
    for file, wanted in found:
        if file != "converters.py":  # tells how other programs are installed
            assert wanted.rstrip(".,") in extras, file


def test_there_is_an_extra_for_each_logger_that_is_shipped():
    for path in config_dir().glob("logger/*.yaml"):
        for node in yaml.safe_load(path.read_text()).values():
            package = LOGGERS[node["_target_"].rpartition(".")[2]][0]
            assert PROJECT["optional-dependencies"][path.stem] == [package]
