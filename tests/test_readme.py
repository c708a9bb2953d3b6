"""The README's example runs as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def test_the_example_of_a_users_own_model(tmp_path):
    (source,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "example.py").write_text(source, encoding="utf-8")
    done = subprocess.run([sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = re.search(r"(\d+) subnets; .*error=([\d.]+), costs=\{'params': (\d+)", done.stdout)
    assert found is not None
    assert int(found[1]) == 3 * (3 + 9 + 27)
    assert float(found[2]) < 15
    assert int(found[3]) <= 8000
    assert "ONNX says 8 - the label is 8" in done.stdout
