"""The compiled parts: `_crf` (runtime/csrc/crf.cpp) and `_pixels` (runtime/csrc/pixels.cpp)."""

try:
    from hvpnet_runtime import _crf, _pixels
except ImportError as error:
    raise ImportError(
        f"the installation is broken, its compiled parts cannot be imported ({error}): "
        "rebuild it with 'pip install --force-reinstall hvpnet', or 'pip install -e .' in a checkout",
        name=error.name,
    ) from error

__all__ = ["_crf", "_pixels"]
