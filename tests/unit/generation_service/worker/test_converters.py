"""What the worker reports about a finished file."""

from __future__ import annotations

from dgx_music.export.v1.export_pb2 import ExportHeader, ExportResponse, Tags
from dgx_music.storage.v1.storage_pb2 import Generation
from generation_service.worker.converters import Exported, build_completion


def test_completion_of_a_file_that_cannot_be_described_has_what_the_header_says():
    header = ExportHeader(tags=Tags(model_version="7"))
    header.generation_facts.update({"bpm": 120.0})
    file = ExportResponse(file_path="outputs/x.wav", file_size_bytes=9, file_sha256="abc", marks=[99])
    completion = build_completion(Generation(id="x"), "token", Exported(header, file), 1.0)
    assert dict(completion.metadata) == {"bpm": 120, "file_sha256": "abc"}
    assert (completion.file_path, completion.file_size_bytes, completion.model_version) == ("outputs/x.wav", 9, "7")
