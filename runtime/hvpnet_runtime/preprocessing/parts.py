"""How many parts of one picture file are read, so that none of them, however small, costs time without bound."""


class TooManyPartsError(Exception):
    """A file has more parts than may be read of it."""


class Parts:
    """Segments, chunks, blocks or boxes of one file that may still be read.

    Args:
        most: that are read of the whole file, at whatever depth they lie.
    """

    def __init__(self, most: int) -> None:
        self._left = most

    def take(self) -> None:
        """Count one more.

        Raises:
            TooManyPartsError: none is left.
        """
        if not self._left:
            raise TooManyPartsError
        self._left -= 1
