"""Device memory for activations, shared by executors that never run at the same time."""

from hvpnet_runtime.backends.cuda import Address, Cuda


class Scratch:
    """Blocks that executors of one stream share; each is freed when the last executor that uses it is.

    The address is part of a CUDA graph, so a block never moves: who needs more than there is gets a block of its own.
    Not thread-safe.
    """

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._blocks: dict[Address, list[int]] = {}  # bytes, users

    def take(self, size: int) -> Address:
        """The smallest block of at least `size` bytes.

        Raises:
            DeviceMemoryError: there is none, and no memory for one.
        """
        fitting = [(held, address) for address, (held, _) in self._blocks.items() if held >= size]
        if fitting:
            _, address = min(fitting)
        else:
            address = self._cuda.malloc(size)
            self._blocks[address] = [size, 0]
        self._blocks[address][1] += 1
        return address

    def give_back(self, address: Address) -> None:
        """End the use of a block by one that took it."""
        self._blocks[address][1] -= 1
        if self._blocks[address][1] == 0:
            del self._blocks[address]
            self._cuda.free(address)
