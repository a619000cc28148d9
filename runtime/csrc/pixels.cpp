#include "pixels.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "wide_vectors.h"

namespace hvpnet {
namespace {

constexpr int fraction_bits = 22;  // Pillow's fixed point: 8 bits of value, 2 to spare
constexpr std::int32_t one_half = 1 << (fraction_bits - 1);

// Each kept pixel of an axis is a weighted mean of `count` pixels of the source: of a triangle around its centre, as
// wide as the scale when shrinking (antialiased). Sums and quotients are in Pillow's order.
struct Taps {
    explicit Taps(const Axis& axis) {
        const double scale = static_cast<double>(axis.source) / static_cast<double>(axis.resized);
        const double support = std::max(scale, 1.0);
        const auto centre = [&](std::size_t k) { return (static_cast<double>(axis.first + k) + 0.5) * scale; };
        const auto first = [&](std::size_t k) {
            return static_cast<std::size_t>(std::max(centre(k) - support + 0.5, 0.0));
        };
        const auto end = [&](std::size_t k) {
            return std::min(static_cast<std::size_t>(centre(k) + support + 0.5), axis.source);
        };
        for (std::size_t k = 0; k < axis.kept; ++k) count = std::max(count, end(k) - first(k));
        pixels.resize(count * axis.kept);
        weights.resize(count * axis.kept);
        std::vector<double> triangle(count);
        for (std::size_t k = 0; k < axis.kept; ++k) {
            double sum = 0;
            for (std::size_t tap = 0; tap < end(k) - first(k); ++tap) {
                const double offset = static_cast<double>(first(k) + tap) - centre(k) + 0.5;
                triangle[tap] = std::max(1.0 - std::abs(offset * (1.0 / support)), 0.0);
                sum += triangle[tap];
            }
            for (std::size_t tap = 0; tap < count; ++tap) {
                const double weight = first(k) + tap < end(k) ? triangle[tap] / sum : 0.0;
                pixels[tap * axis.kept + k] = static_cast<std::uint32_t>(std::min(first(k) + tap, axis.source - 1));
                weights[tap * axis.kept + k] = static_cast<std::int32_t>(0.5 + weight * (1 << fraction_bits));
            }
        }
    }

    std::size_t count = 0;
    std::vector<std::uint32_t> pixels;  // [count, kept]
    std::vector<std::int32_t> weights;  // [count, kept], in units of 2^-fraction_bits; zero where there are fewer
};

// values[k] = row[pixels[k]], four channels each
WIDE_VECTORS
void gather(const std::uint8_t* __restrict row, const std::uint32_t* __restrict pixels, std::size_t count,
            std::uint8_t* __restrict values) {
    for (std::size_t k = 0; k < count; ++k) std::memcpy(values + 4 * k, row + std::size_t{4} * pixels[k], 4);
}

// sums[k] += values[k] * weights[k]
WIDE_VECTORS
void add_weighted(const std::uint8_t* __restrict values, const std::int32_t* __restrict weights, std::size_t count,
                  std::int32_t* __restrict sums) {
    for (std::size_t k = 0; k < count; ++k) sums[k] += values[k] * weights[k];
}

// sums[k] += values[k] * weight
WIDE_VECTORS
void add_weighted(const std::uint8_t* __restrict values, std::int32_t weight, std::size_t count,
                  std::int32_t* __restrict sums) {
    for (std::size_t k = 0; k < count; ++k) sums[k] += values[k] * weight;
}

WIDE_VECTORS
void round_off(const std::int32_t* __restrict sums, std::size_t count, std::uint8_t* __restrict values) {
    for (std::size_t k = 0; k < count; ++k)
        values[k] = static_cast<std::uint8_t>(std::min(sums[k] >> fraction_bits, std::int32_t{255}));
}

}  // namespace

void resize_part(const std::uint8_t* picture, const Axis& rows, const Axis& columns, std::uint8_t* kept) {
    const Taps across(columns), down(rows);
    const std::size_t width = 4 * columns.kept;
    std::vector<std::int32_t> sums(width);
    std::vector<std::uint8_t> tapped(width), mixed(width);

    // One weight per channel, so that the channels of a row are one long vector.
    std::vector<std::int32_t> weights(across.count * width);
    for (std::size_t k = 0; k < weights.size(); ++k) weights[k] = across.weights[k / 4];

    const auto [top, bottom] = std::minmax_element(down.pixels.begin(), down.pixels.end());
    std::vector<std::uint8_t> narrow((*bottom - *top + 1) * width);  // [rows needed, columns.kept, 4]
    for (std::size_t y = *top; y <= *bottom; ++y) {
        const std::uint8_t* row = picture + y * columns.source * 4;
        std::fill(sums.begin(), sums.end(), one_half);
        for (std::size_t tap = 0; tap < across.count; ++tap) {
            gather(row, &across.pixels[tap * columns.kept], columns.kept, tapped.data());
            add_weighted(tapped.data(), &weights[tap * width], width, sums.data());
        }
        round_off(sums.data(), width, &narrow[(y - *top) * width]);
    }
    for (std::size_t y = 0; y < rows.kept; ++y) {
        std::fill(sums.begin(), sums.end(), one_half);
        for (std::size_t tap = 0; tap < down.count; ++tap)
            add_weighted(&narrow[(down.pixels[tap * rows.kept + y] - *top) * width], down.weights[tap * rows.kept + y],
                         width, sums.data());
        round_off(sums.data(), width, mixed.data());
        for (std::size_t x = 0; x < columns.kept; ++x)
            std::copy_n(&mixed[4 * x], 3, kept + (y * columns.kept + x) * 3);
    }
}

}  // namespace hvpnet
