"""Files that others made, read without taking more memory than a file of that kind is worth.

Nothing here runs code of a file. Whoever calls says of what kind the file is, and turns the errors into its own.
"""

import json
import mmap
import os
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

from hvpnet.errors import CheckpointError, ConfigError
from hvpnet_runtime.errors import MissingExtraError

if TYPE_CHECKING:
    from torch import Tensor

KIB, MIB = 2**10, 2**20
CONFIGURATION = MIB
"""Most bytes of a configuration or of a list of labels: the largest published ones have some thousand."""
VOCABULARY = 32 * MIB
"""Most bytes of a tokeniser's file; that of a BERT of 120,000 pieces has 3 MB."""
DATA_SET = 64 * MIB
"""Most bytes of a split's text or lists; the largest published one has 5 MB."""

_BYTEARRAY = b"\nbytearray\n"  # PyTorch lets a pickle make one of any size


def require_grounder(grounder: Path, tokenizer: Path | None) -> None:
    """Refuse the checkpoint of a grounder, or its tokeniser, that is not there, before anything is loaded.

    Args:
        grounder: file of a one-stage grounder, or folder of an OWL-ViT.
        tokenizer: folder of the tokeniser, which only an OWL-ViT has itself.

    Raises:
        CheckpointError: there is no such file or folder.
        ConfigError: there is no such tokeniser, or a file came without one.
    """
    if not grounder.exists():
        raise CheckpointError(f"the grounder {grounder} is not there: name the file or folder of its checkpoint")
    if tokenizer is None and not grounder.is_dir():
        raise ConfigError(
            f"the grounder {grounder} comes without a tokenizer: name the folder of the BERT that it was trained on"
            " (hvpnet ground add --grounder-tokenizer, or tokenizer in Python)"
        )
    if tokenizer is not None and not tokenizer.is_dir():
        raise ConfigError(f"the grounder's tokenizer {tokenizer} is not there: name the folder of the tokenizer")


def read_text(path: Path, most: int) -> str:
    """The text of a file of at most so many bytes, without a byte order mark, its lines ended by line feeds.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not UTF-8, or larger.
    """
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it has more than {most} bytes, and no file of its kind needs as many")
    return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: Path, most: int) -> object:
    """The JSON value of a file of at most so many bytes, which may begin with a byte order mark.

    Raises:
        OSError: it cannot be read.
        ValueError: it is larger, or not JSON, or nested too deep.
    """
    return parse_json(read_text(path, most))


def parse_json(text: str) -> object:
    """A JSON value.

    Raises:
        ValueError: it is not JSON, or nested too deep.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def load_torch(path: Path) -> object:
    """What `torch.save` wrote, tensors on the CPU.

    Raises:
        MissingExtraError: torch is not installed.
        ValueError: the file is missing, damaged, holds code, or takes more memory than it has bytes.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("torch", "export", f"reading {path.name}") from error
    try:
        _check_torch_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # guesses at what else the file may be: the error says it
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            "it holds pickled code or a whole model (save its state_dict() alone), or is no PyTorch file"
        ) from error
    except Exception as error:  # arbitrary bytes make the unpickler fail in any way
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise ValueError(reason if isinstance(error, ValueError) else f"{type(error).__name__} {reason}") from error


def check_storage(path: Path, tensors: "list[Tensor]") -> None:
    """Hold tensors of a file against its size: a view repeats one number as often as it likes.

    Raises:
        ValueError: they would take more memory than the file has bytes, or have no numbers at all.
    """
    size = path.stat().st_size
    dense = [tensor for tensor in tensors if not (tensor.is_sparse or tensor.is_quantized)]
    held = sum(tensor.numel() * tensor.element_size() for tensor in dense)
    if held > size or any(tensor.is_meta for tensor in dense):
        raise ValueError(f"its tensors have {held} bytes, the file {size}: they are views, or without their numbers")


def _check_torch_file(path: Path) -> None:
    """See `load_torch`; files of the older format are no archives, and have no compression either."""
    with path.open("rb") as file:
        if file.read(4) == b"PK\x03\x04":  # as PyTorch sees it
            makes_bytearray = any(_BYTEARRAY in each for each in _pickles(file))
        elif path.stat().st_size:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                makes_bytearray = content.find(_BYTEARRAY) >= 0
        else:
            raise EOFError("it is empty")
    if makes_bytearray:
        raise ValueError("it makes a bytearray, which no state dict has")


def _pickles(file: IO[bytes]) -> list[bytes]:
    """The pickles in an archive of PyTorch's, once it is checked."""
    with zipfile.ZipFile(file) as archive:
        if any(name.endswith("/constants.pkl") for name in archive.namelist()):
            raise ValueError("it is a TorchScript archive: save the model's state_dict() alone")
        _check_archive(file)
        pickles = [each for each in archive.infolist() if each.filename.endswith(".pkl")]
        if any(each.file_size > DATA_SET for each in pickles):
            raise ValueError(f"it describes its tensors in more than {DATA_SET} bytes, which no state dict needs")
        return [archive.read(each) for each in pickles]


def _check_archive(file: IO[bytes]) -> None:
    """Refuse an archive that would take more memory than its file has bytes; `torch.save` compresses nothing.

    Args:
        file: is left at its end.

    Raises:
        OSError: the file cannot be read.
        ValueError: a member is compressed, or members share bytes.
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
