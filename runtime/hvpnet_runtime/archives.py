"""Zip archives of numbers, as NumPy and PyTorch write them: never compressed, none holds more than its bytes."""

import zipfile
from pathlib import Path


def check_archive(path: Path) -> None:
    """Refuse an archive that would take more memory than its file has bytes.

    Raises:
        OSError: the file cannot be read.
        ValueError: a member is compressed, which neither `numpy.savez` nor `torch.save` does; or members share bytes.
        zipfile.BadZipFile: it is no zip archive, or a truncated one.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    packed = [each.filename for each in members if (each.compress_type, each.compress_size) != (0, each.file_size)]
    if packed:
        raise ValueError(f"{packed[0]} in it is compressed: save it again without compression")
    size, held = path.stat().st_size, sum(each.file_size for each in members)
    if held > size:
        raise ValueError(f"its members have {held} bytes, the file {size}: they share bytes, as no such archive does")
