"""JPEG files without their metadata and without a decode: what may be sent as it is, is not encoded a second time."""

_START_OF_SCAN, _COMMENT = 0xDA, 0xFE
_APPLICATION = range(0xE0, 0xF0)
_KEPT = {0xE0, 0xEE}  # JFIF, and Adobe's word on how colours are coded


def without_metadata(data: bytes) -> bytes | None:
    """The JPEG less EXIF (with it places and thumbnails), profiles, XMP and comments; the coded pixels are the same.

    None where the segments before the first scan are not as the standard has them: such a file is to be decoded.
    """
    kept, at = [data[:2]], 2
    while data[at : at + 1] == b"\xff" and at + 4 <= len(data):
        marker = data[at + 1]
        if marker == _START_OF_SCAN:
            return b"".join((*kept, data[at:]))
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if end < at + 4:
            return None
        if marker in _KEPT or (marker not in _APPLICATION and marker != _COMMENT):
            kept.append(data[at:end])
        at = end
    return None
