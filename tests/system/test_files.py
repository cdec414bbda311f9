"""YAML files are read as PyYAML reads them, by libyaml where there is one."""

import pytest
import yaml

from lmft.config.shipped import config_dir
from lmft.system.files import read_yaml


@pytest.mark.parametrize("has_libyaml", [True, False])
def test_a_yaml_is_read_as_pyyaml_reads_it(has_libyaml, tmp_path, monkeypatch):
    if not has_libyaml:
        monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    own = tmp_path / "own.yaml"
    own.write_text("a: [1, 1e-3, '😀 é\\t', null]\nb: >\n  two\n  lines\nc: \"\\x07\"\n", "utf-8")
    for path in (own, config_dir() / "train.yaml", config_dir() / "data" / "_base.yaml"):
        assert read_yaml(path) == yaml.load(path.read_text("utf-8"), yaml.SafeLoader)


def test_a_yaml_that_makes_objects_is_refused(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("!!python/object/apply:os.getcwd []\n")
    with pytest.raises(yaml.YAMLError):
        read_yaml(path)
