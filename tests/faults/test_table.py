"""RELIABILITY.md tells of each fault, and names each test; each of the names is one's."""

import re
from pathlib import Path

FOLDER = Path(__file__).parent
ROW = re.compile(r"^\| (\d+) \| .* \|$", re.MULTILINE)
TEST = re.compile(r"test_fault_\w+")


def test_the_table_holds_all_faults_and_all_tests():
    table = {
        int(row[1]): TEST.findall(row[0]) for row in ROW.finditer((FOLDER.parents[1] / "RELIABILITY.md").read_text())
    }
    assert list(table) == list(range(1, 42))
    for number, names in table.items():
        assert names and all(name.startswith(f"test_fault_{number:02}_") for name in names), number
    written = {
        name
        for path in FOLDER.glob("test_*.py")
        for name in re.findall(r"^def (test_fault_\w+)", path.read_text(), re.M)
    }
    assert {name for names in table.values() for name in names} == written
