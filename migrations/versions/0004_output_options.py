"""What the file is to be, in place of how its samples are written."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

FORMAT_OF = {"pcm_16": "wav_pcm_16", "float": "wav_float"}
"""The encodings that were not the default, and what they are called now."""

GENERATIONS = sa.table(
    "generations", sa.column("file_encoding", sa.Text), sa.column("output", sa.JSON(none_as_null=True))
)


def upgrade() -> None:
    op.add_column("generations", sa.Column("output", sa.JSON))
    for encoding, file_format in FORMAT_OF.items():
        rows = GENERATIONS.update().where(GENERATIONS.c.file_encoding == encoding)
        op.execute(rows.values(output={"format": file_format}))
    op.drop_column("generations", "file_encoding")


def downgrade() -> None:
    # The default stays: SQLite adds no column that must not be null without one.
    op.add_column("generations", sa.Column("file_encoding", sa.Text, nullable=False, server_default="pcm_24"))
    for encoding, file_format in FORMAT_OF.items():
        rows = GENERATIONS.update().where(GENERATIONS.c.output["format"].as_string() == file_format)
        op.execute(rows.values(file_encoding=encoding))
    op.drop_column("generations", "output")
