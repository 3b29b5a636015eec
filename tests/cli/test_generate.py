"""`lm generate`: where prompts are read from."""

import pytest

from lm.cli.generate import parse, read_prompts


@pytest.mark.parametrize("flag", ["--prompt-file", "--prompts-file"])
def test_a_file_in_the_home_folder(flag, tmp_path, monkeypatch):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    (tmp_path / "p.txt").write_text("the sea")
    assert read_prompts(parse([flag, "~/p.txt"])) == ["the sea"]
