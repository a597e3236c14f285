"""A folder belongs to the command that made it."""

from pathlib import Path

from restora.run_state import claim


def test_each_command_gets_the_first_folder_that_is_free(tmp_path: Path) -> None:
    made = [claim(tmp_path / "new" / "run") for _ in range(3)]
    assert [folder.name for folder in made] == ["run", "run_2", "run_3"]
    made[1].rmdir()
    assert claim(tmp_path / "new" / "run") == made[1]
