import json
import xml.etree.ElementTree as ElementTree

from todm.recipes.duality_lenet.curves import COLOURS, main

SVG = "{http://www.w3.org/2000/svg}"


def log(run, row, seed, nonzero):
    """Four evaluations among other updates; the error is a hundredth of the non-zero weights."""
    folder = run / row / f"seed{seed}"
    folder.mkdir(parents=True)
    lines = [{"update": update, "loss": 1.0} for update in range(1, 41)]
    for value, line in zip(nonzero, lines[9::10], strict=True):
        line["dev"] = {"alone": {"error": value / 100, "nonzero": value}}
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_every_seed_and_the_mean_of_each_row_are_drawn(tmp_path):
    for seed, scale in enumerate((0.5, 1.5)):
        log(tmp_path, "first", seed, [scale * value for value in (100, 50, 20, 10)])
        log(tmp_path, "second", seed, [scale * value for value in (100, 80, 60, 40)])
    assert main([str(tmp_path), "first", "second", str(tmp_path / "curves.svg")]) == 0
    root = ElementTree.fromstring((tmp_path / "curves.svg").read_text())
    panels = root.findall(f"{SVG}g")
    assert len(panels) == 2
    for panel in panels:
        lines = panel.findall(f"{SVG}polyline")
        assert [line.get("stroke") for line in lines] == [COLOURS[0]] * 3 + [COLOURS[1]] * 3
        low, high, mean = ([float(p.split(",")[1]) for p in line.get("points").split()] for line in lines[:3])
        assert len(mean) == 4
        # Downwards is less; 1.5 times as much is less far from 1 than 0.5 times on a logarithmic axis.
        assert all(h < m < l and m - h < l - m for l, m, h in zip(low, mean, high, strict=True))  # noqa: E741
        assert mean == sorted(mean)


def test_a_row_that_was_not_trained_is_named(tmp_path, capsys):
    assert main([str(tmp_path), "first", str(tmp_path / "curves.svg")]) == 2
    assert "no log of row 'first'" in capsys.readouterr().err
    assert main([str(tmp_path)]) == 2
    assert not (tmp_path / "curves.svg").exists()
