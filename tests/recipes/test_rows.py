@pytest.mark.parametrize("name", HOMES)
def test_a_row_is_trained_and_tested_by_the_command(name, tmp_path, monkeypatch):
    if not Path(os.environ.get("TODM_DATA", "nowhere"), HOMES[name]).is_dir():
        pytest.skip(f"needs $TODM_DATA/{HOMES[name]}")
    monkeypatch.setenv("TODM_CACHE", str(tmp_path / "cache"))
    row = load_comparison(load_recipe(name)[1]).baseline
    command = ["compare", name, "--out", str(tmp_path / "out"), "--quick", "--seeds", "1", "--rows", row]
    assert main(command) == 0
    assert f"| {row} |" in (tmp_path / "out" / "table.md").read_text()
