"""Writes a copy of an audio file with other tags. The encoded audio is the same byte for byte."""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO

from export_service.retagging.chunk_files import layout_chunk_file
from export_service.retagging.ogg_stream import iter_stream
from export_service.retagging.splicing import Layout, Piece, Span
from export_service.tagging import id3, mp4, vorbis_comment
from export_service.tagging.containers import SampleLayout, encode_tags
from export_service.tagging.tags import FileTags

REPLACED_BLOCKS = (vorbis_comment.VORBIS_COMMENT, vorbis_comment.PICTURE, vorbis_comment.PADDING)
"""Types of FLAC metadata blocks that are not taken over."""


def write_with_tags(source: BinaryIO, part: Path, container: str, tags: FileTags, samples: SampleLayout) -> None:
    """Writes a copy of an open file of ours to the new file `part`, with these tags and without its signature; only in
    M4A its box is taken over, to be replaced or discarded.

    The same arguments give the same bytes. Memory use does not grow with the file. Raises OSError.
    """
    with part.open("xb") as destination:
        if container == "OGG":
            comments = vorbis_comment.encode_comments(tags, samples.sample_rate_hz, with_cover=True)
            for page in iter_stream(source, comments):
                destination.write(page)
        else:
            _layout(source, container, tags, samples).write(source, destination)
    if container == "M4A":
        mp4.replace_user_data(part, encode_tags(container, tags, samples, None))


def _layout(source: BinaryIO, container: str, tags: FileTags, samples: SampleLayout) -> Layout:
    match container:
        case "MP3":
            return _layout_mp3(source, tags, samples.sample_rate_hz)
        case "FLAC":
            return _layout_flac(source, tags, samples.sample_rate_hz)
        case "M4A":
            return Layout([Span(0, source.seek(0, io.SEEK_END))])
    return layout_chunk_file(source, encode_tags(container, tags, samples, None))


def _layout_mp3(source: BinaryIO, tags: FileTags, sample_rate_hz: int) -> Layout:
    start, end = id3.find_end(source), source.seek(0, io.SEEK_END)
    source.seek(end - id3.VERSION_1.size)
    if source.read(3) == b"TAG":
        end -= id3.VERSION_1.size
    return Layout([id3.encode_tag(tags, sample_rate_hz), Span(start, end), id3.encode_version_1(tags)])


def _layout_flac(source: BinaryIO, tags: FileTags, sample_rate_hz: int) -> Layout:
    blocks, vendor, end = list[tuple[int, bytes]](), b"", 0
    for kind, start, size, _ in vorbis_comment.iter_flac_blocks(source):
        source.seek(start)
        content, end = source.read(size), start + size
        if kind == vorbis_comment.VORBIS_COMMENT:
            vendor = vorbis_comment.read_vendor(content)
        elif kind not in REPLACED_BLOCKS:
            blocks.append((kind, content))
    blocks.append((vorbis_comment.VORBIS_COMMENT, vendor + vorbis_comment.encode_comments(tags, sample_rate_hz)))
    if tags.cover is not None:
        blocks.append((vorbis_comment.PICTURE, vorbis_comment.encode_picture(tags.cover)))
    encoded: list[Piece] = [
        vorbis_comment.encode_block(kind, content, is_last=number == len(blocks))
        for number, (kind, content) in enumerate(blocks, 1)
    ]
    return Layout([vorbis_comment.FLAC_MAGIC, *encoded, Span(end, source.seek(0, io.SEEK_END))])
