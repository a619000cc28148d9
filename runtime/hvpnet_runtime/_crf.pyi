import numpy as np
import numpy.typing as npt

class Crf:
    def __init__(
        self,
        start_transitions: npt.NDArray[np.float32],
        end_transitions: npt.NDArray[np.float32],
        transitions: npt.NDArray[np.float32],
    ) -> None: ...
    @property
    def labels(self) -> int: ...
    def decode(self, emissions: npt.NDArray[np.float32], mask: npt.NDArray[np.uint8]) -> list[list[int]]: ...
    def span_probabilities(
        self, emissions: npt.NDArray[np.float32], tags: npt.NDArray[np.int64], spans: npt.NDArray[np.int64]
    ) -> list[float]: ...
