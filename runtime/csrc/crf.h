// Linear-chain conditional random field: the best tag sequence, and the probability of tagged spans.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace hvpnet {

// Positions [first, last] of a sequence, both inclusive.
struct Span {
    std::int64_t first;
    std::int64_t last;
};

// The score of tags y over emissions x is
//   start[y_0] + sum_t x[t][y_t] + sum_t transitions[y_(t-1)][y_t] + end[y_(length-1)].
// Arrays are dense, in C order. A Crf is immutable, so threads may share one.
// Every function throws std::invalid_argument on values it cannot answer for; the caller answers for the sizes.
class Crf {
public:
    // start, end: [labels]; transitions: [labels, labels], from row to column. NaN is refused.
    Crf(const float* start, const float* end, const float* transitions, std::size_t labels);

    std::size_t labels() const noexcept { return labels_; }

    // The best tags of each row up to its length, as torchcrf.CRF.decode finds them: float32 throughout, the same order
    // of additions, the lowest tag on ties. emissions: [batch, length, labels]; mask: [batch, length], non-zero on the
    // leading positions of a row, at least one, and zero after. NaN at a valid position is refused.
    std::vector<std::vector<std::int32_t>> decode(const float* emissions, const std::uint8_t* mask, std::size_t batch,
                                                  std::size_t length) const;

    // The posterior probability that all positions of a span carry their tags, for each span of one sequence.
    // emissions: [length, labels]; tags: [length]. Scores of NaN and +inf are refused, for they have no distribution.
    std::vector<double> span_probabilities(const float* emissions, const std::int64_t* tags, std::size_t length,
                                           const std::vector<Span>& spans) const;

private:
    class Viterbi;

    static void finish_numbers(std::vector<Viterbi>& sequences, std::size_t length);
    static void finish_anything(std::vector<Viterbi>& sequences, std::size_t length);
    bool stays_number(const float* emissions, std::size_t length) const;
    std::vector<double> forward(const float* emissions, std::size_t length) const;
    std::vector<double> backward(const float* emissions, std::size_t length) const;
    float transition(std::size_t from, std::size_t to) const { return transitions_[from * stride_ + to]; }

    std::size_t labels_;
    std::size_t stride_;              // labels_, rounded up to whole blocks of columns
    std::vector<float> start_;        // [labels_]
    std::vector<float> end_;          // [labels_]
    std::vector<float> transitions_;  // [labels_, stride_], zero in the padding
    float highest_ = 0;               // of all of these, or zero
};

}  // namespace hvpnet
