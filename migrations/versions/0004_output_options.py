"""Output options of the file, in place of only its sample encoding."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

FORMAT_OF = {"pcm_16": "wav_pcm_16", "float": "wav_float"}
"""The encodings other than the default, and the formats that replace them."""

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
    # The default is permanent: SQLite can't add a NOT NULL column without one.
    op.add_column("generations", sa.Column("file_encoding", sa.Text, nullable=False, server_default="pcm_24"))
    for encoding, file_format in FORMAT_OF.items():
        rows = GENERATIONS.update().where(GENERATIONS.c.output["format"].as_string() == file_format)
        op.execute(rows.values(file_encoding=encoding))
    op.drop_column("generations", "output")
