import numpy as np
import numpy.typing as npt

def resize_part(
    picture: npt.NDArray[np.uint8], height: int, width: int, top: int, left: int, kept: npt.NDArray[np.uint8]
) -> None: ...
