"""Zip archives of numbers, as NumPy and PyTorch write them: never compressed, none holds more than its bytes."""

import os
import zipfile
from typing import IO


def check_archive(file: IO[bytes]) -> None:
    """Refuse an archive that would take more memory than its file has bytes.

    Args:
        file: is left at its end.

    Raises:
        OSError: the file cannot be read.
        ValueError: a member is compressed, which neither `numpy.savez` nor `torch.save` does; or members share bytes.
        zipfile.BadZipFile: it is no zip archive, or a truncated one.
    """
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
    packed = [each.filename for each in members if (each.compress_type, each.compress_size) != (0, each.file_size)]
    if packed:
        raise ValueError(f"{packed[0]} in it is compressed: save it again without compression")
    size, held = file.seek(0, os.SEEK_END), sum(each.file_size for each in members)
    if held > size:
        raise ValueError(f"its members have {held} bytes, the file {size}: they share bytes, as no such archive does")
