// Pictures to the pixels that the published transforms give.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hvpnet {

// One axis of a resized picture of which only a part is kept.
struct Axis {
    std::size_t source;   // pixels before resizing
    std::size_t resized;  // pixels after resizing
    std::size_t first;    // the first pixel kept
    std::size_t kept;     // how many
};

// The part of a resized picture that is kept, equal to Pillow's Image.resize(size, BILINEAR).crop(box) in every bit, at
// the cost of that part alone.
// picture: [rows.source, columns.source, 4], the fourth channel ignored; kept: [rows.kept, columns.kept, 3].
void resize_part(const std::uint8_t* picture, const Axis& rows, const Axis& columns, std::uint8_t* kept);

}  // namespace hvpnet
