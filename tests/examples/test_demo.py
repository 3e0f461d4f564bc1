"""The demo names its photographs and learns digits, for one epoch here."""

import re

from examples import demo


def test_demo(tmp_path, capsys):
    demo.main(["--epochs", "1", "--output", str(tmp_path)])
    output = capsys.readouterr().out
    rows = re.findall(r"^  (\w+)\.jpg +(\w+) +([\d.]+)%", output, re.MULTILINE)
    assert len(rows) == 10
    assert sum(name == seen for name, seen, _ in rows) >= 8
    assert float(re.search(r"Held-out digits read correctly: ([\d.]+)%", output)[1]) >= 30
    assert (tmp_path / "model.keras").exists()
