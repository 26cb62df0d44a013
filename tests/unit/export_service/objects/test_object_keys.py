from hypothesis import given
from hypothesis import strategies as st

from export_service.formats.codecs import EXTENSIONS
from export_service.library.inventory import FileKind
from export_service.objects.object_keys import ObjectKey, manifest_key, parse_key

ID, RENDER_ID = "123e4567-e89b-12d3-a456-426614174000", "00000000-0000-4000-8000-000000000001"
OTHERS = [
    "",
    "probe",
    "outputs",
    f"outputs/{ID}/1",
    f"outputs/{ID}/1.txt",
    f"outputs/{ID}/1.c2pa",
    f"outputs/{ID}/1.0123456789abcdef.wav",
    f"outputs/{ID}/x.wav",
    f"outputs/{ID}/1/2.wav",
    f"outputs/{ID.upper()}/1.wav",
    f"outputs/2026/11/30/{ID}.wav",
    f"renders/{ID}/{RENDER_ID}.wav",
    f"clips/{ID}/1.wav",
    f"more/outputs/{ID}/1.wav",
    f"outputs/{ID}/1.wav\n",
]


@given(
    st.sampled_from(list(FileKind)),
    st.uuids(),
    st.integers(0, 2**31 - 1),
    st.uuids(),
    st.sampled_from(list(EXTENSIONS)),
)
def test_a_key_is_what_it_is_parsed_to(kind, owner, attempt, render, extension):
    key = ObjectKey(
        kind,
        str(owner),
        0 if kind is FileKind.CLIP else attempt,
        str(render) if kind is FileKind.RENDER else "",
        extension,
    )
    assert parse_key(str(key)) == key
    assert key.is_audio
    manifest = manifest_key(key, "0123456789abcdef" * 4)
    assert parse_key(str(manifest)) == manifest
    assert not manifest.is_audio
    assert manifest.stem == key.stem
    assert str(manifest) == f"{key.stem}.0123456789abcdef.c2pa"


def test_what_is_no_key():
    assert [one for one in OTHERS if parse_key(one) is not None] == []
