"""What a folder of fine-tuning was begun with is kept beside its checkpoints, and compared."""

import json

import pytest

from jaxsnn.errors import UserError
from jaxsnn.training.finetune_record import RECORD, begin_or_go_on


def with_a_checkpoint(folder):
    """As a training leaves it."""
    place = folder / "checkpoints" / "0"
    place.mkdir(parents=True)
    (place / "_CHECKPOINT_METADATA").touch()


def test_a_folder_is_begun_by_its_first_checkpoint(tmp_path):
    """What a refused run has left is written over, so that the mistake can be mended."""
    begin_or_go_on(tmp_path, {"epochs": 4}, resume=False)
    begin_or_go_on(tmp_path, {"epochs": 5}, resume=False)
    assert json.loads((tmp_path / RECORD).read_text()) == {"epochs": "5"}
    with_a_checkpoint(tmp_path)
    begin_or_go_on(tmp_path, {"epochs": 5}, resume=True)
    with pytest.raises(UserError, match="begun with epochs 5; it cannot go on with 4"):
        begin_or_go_on(tmp_path, {"epochs": 4}, resume=True)


def test_to_go_on_where_nothing_was_begun_writes_nothing(tmp_path):
    begin_or_go_on(tmp_path / "mistyped", {"epochs": 4}, resume=True)
    assert not (tmp_path / "mistyped").exists()


def test_checkpoints_of_something_else_are_refused(tmp_path):
    with_a_checkpoint(tmp_path)
    with pytest.raises(UserError, match=f"without {RECORD}"):
        begin_or_go_on(tmp_path, {"epochs": 4}, resume=True)
    assert not (tmp_path / RECORD).exists()


def test_a_damaged_record_is_named(tmp_path):
    with_a_checkpoint(tmp_path)
    (tmp_path / RECORD).write_text('{"epochs": ')
    with pytest.raises(UserError, match=RECORD):
        begin_or_go_on(tmp_path, {"epochs": 4}, resume=True)
