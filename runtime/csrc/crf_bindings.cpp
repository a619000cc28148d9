// The Python face of crf.h. crf.py hands over aligned arrays of the right type and number of dimensions; their sizes are
// checked here, where the pointers are taken.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/vector.h>

#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "crf.h"

namespace nb = nanobind;
using namespace nb::literals;
using hvpnet::Crf;
using hvpnet::Span;

namespace {

template <typename Scalar, std::size_t dimensions>
using Array = nb::ndarray<const Scalar, nb::ndim<dimensions>, nb::c_contig, nb::device::cpu>;

using WithoutGil = nb::call_guard<nb::gil_scoped_release>;

void check_size(std::size_t got, std::size_t expected, const std::string& what) {
    if (got != expected)
        throw std::invalid_argument(what + " is " + std::to_string(got) + ", expected " + std::to_string(expected));
}

void construct(Crf* self, const Array<float, 1>& start, const Array<float, 1>& end, const Array<float, 2>& transitions) {
    const std::size_t labels = start.shape(0);
    check_size(end.shape(0), labels, "the length of end_transitions");
    check_size(transitions.shape(0), labels, "the number of rows of transitions");
    check_size(transitions.shape(1), labels, "the number of columns of transitions");
    new (self) Crf(start.data(), end.data(), transitions.data(), labels);
}

std::vector<std::vector<std::int32_t>> decode(const Crf& self, const Array<float, 3>& emissions,
                                              const Array<std::uint8_t, 2>& mask) {
    check_size(emissions.shape(2), self.labels(), "the number of labels of emissions");
    check_size(mask.shape(0), emissions.shape(0), "the batch size of mask");
    check_size(mask.shape(1), emissions.shape(1), "the length of mask");
    return self.decode(emissions.data(), mask.data(), mask.shape(0), mask.shape(1));
}

std::vector<double> span_probabilities(const Crf& self, const Array<float, 2>& emissions,
                                       const Array<std::int64_t, 1>& tags, const Array<std::int64_t, 2>& spans) {
    check_size(emissions.shape(1), self.labels(), "the number of labels of emissions");
    check_size(tags.shape(0), emissions.shape(0), "the length of tags");
    check_size(spans.shape(1), 2, "the number of ends of a span");
    std::vector<Span> span_list;
    span_list.reserve(spans.shape(0));
    for (std::size_t k = 0; k < spans.shape(0); ++k) span_list.push_back({spans(k, 0), spans(k, 1)});
    return self.span_probabilities(emissions.data(), tags.data(), tags.shape(0), span_list);
}

}  // namespace

NB_MODULE(_crf, module) {
    nb::class_<Crf>(module, "Crf")
        .def("__init__", &construct, "start_transitions"_a.noconvert(), "end_transitions"_a.noconvert(),
             "transitions"_a.noconvert())
        .def_prop_ro("labels", &Crf::labels)
        .def("decode", &decode, "emissions"_a.noconvert(), "mask"_a.noconvert(), WithoutGil())
        .def("span_probabilities", &span_probabilities, "emissions"_a.noconvert(), "tags"_a.noconvert(),
             "spans"_a.noconvert(), WithoutGil());
}
