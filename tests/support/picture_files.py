"""Pictures as the bytes of a file."""

import io

from PIL import Image


def picture_file(kind: str = "PNG", size: tuple[int, int] = (40, 30)) -> bytes:
    """A red one."""
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, kind)
    return file.getvalue()
