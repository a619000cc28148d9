// The Python face of pixels.h. pictures.py hands over arrays of the right type; their sizes are checked here, where the
// pointers are taken.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <stdexcept>

#include "pixels.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

template <typename Scalar, std::size_t dimensions>
using Array = nb::ndarray<Scalar, nb::ndim<dimensions>, nb::c_contig, nb::device::cpu>;

using WithoutGil = nb::call_guard<nb::gil_scoped_release>;

void check(bool holds, const char* otherwise) {
    if (!holds) throw std::invalid_argument(otherwise);
}

void resize_part(const Array<const std::uint8_t, 3>& picture, std::size_t height, std::size_t width, std::size_t top,
                 std::size_t left, const Array<std::uint8_t, 3>& kept) {
    check(picture.size() > 0 && picture.shape(2) == 4, "picture must be [height, width, 4], and not empty");
    check(kept.size() > 0 && kept.shape(2) == 3, "kept must be [height, width, 3], and not empty");
    check(kept.shape(0) <= height && top <= height - kept.shape(0) && kept.shape(1) <= width &&
              left <= width - kept.shape(1),
          "kept reaches beyond the resized picture");
    hvpnet::resize_part(picture.data(), {picture.shape(0), height, top, kept.shape(0)},
                        {picture.shape(1), width, left, kept.shape(1)}, kept.data());
}

}  // namespace

NB_MODULE(_pixels, module) {
    module.def("resize_part", &resize_part, "picture"_a.noconvert(), "height"_a, "width"_a, "top"_a, "left"_a,
               "kept"_a.noconvert(), WithoutGil());
}
