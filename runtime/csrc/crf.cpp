#include "crf.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>

#include "wide_vectors.h"

namespace hvpnet {
namespace {

static_assert(FLT_EVAL_METHOD == 0, "ties are only PyTorch's if float arithmetic rounds to float");

// Columns computed together: a constant count, which compilers turn into straight vector code.
constexpr std::size_t block_size = 16;

// Sequences decoded together: a step waits for the one before it in its own sequence only.
constexpr std::size_t sequences_in_turn = 2;

constexpr double infinity = std::numeric_limits<double>::infinity();

// The order of torch.max: the first of equals stays, and the first NaN beats every number.
struct Exceeds {
    bool operator()(float candidate, float best) const { return !(candidate <= best) & (best == best); }
};

// The same where no score is NaN, for three quarters of the time.
struct ExceedsNumber {
    bool operator()(float candidate, float best) const { return !(candidate <= best); }
};

// For one block of columns j, next[j] = max_i (score[i] + transitions[i][j]) + emission[j] and its first i. Adding the
// emission after the maximum would be cheaper, but would break ties differently from torchcrf.
template <typename Order>
INLINE void viterbi_block(const float* __restrict score, const float* __restrict emission,
                          const float* __restrict transitions, std::size_t labels, std::size_t stride,
                          float* __restrict next, std::int32_t* __restrict from) {
    constexpr Order exceeds;
    for (std::size_t j = 0; j < block_size; ++j) {
        next[j] = (score[0] + transitions[j]) + emission[j];
        from[j] = 0;
    }
    for (std::size_t i = 1; i < labels; ++i) {
        const float* row = transitions + i * stride;
        const auto tag = static_cast<std::int32_t>(i);
        for (std::size_t j = 0; j < block_size; ++j) {
            const float candidate = (score[i] + row[j]) + emission[j];
            const bool better = exceeds(candidate, next[j]);
            next[j] = better ? candidate : next[j];
            from[j] = better ? tag : from[j];
        }
    }
}

void refuse_nan(const float* values, std::size_t count, const std::string& name) {
    std::int32_t found = 0;  // a count without early exit vectorises
    for (std::size_t k = 0; k < count; ++k) found |= values[k] != values[k] ? 1 : 0;
    if (found != 0) throw std::invalid_argument(name + " contains NaN");
}

// False also where a value is NaN.
WIDE_VECTORS
bool all_below(const float* values, std::size_t count, float bound) {
    std::int32_t found = 0;
    for (std::size_t k = 0; k < count; ++k) found |= values[k] < bound ? 0 : 1;
    return found == 0;
}

void refuse_positive_infinity(const float* values, std::size_t count, const std::string& name) {
    if (std::count(values, values + count, std::numeric_limits<float>::infinity()) > 0)
        throw std::invalid_argument(name + " contains +inf, so no probability is defined");
}

// The number of leading non-zero values, which must be all the non-zero values, and one at least.
std::size_t prefix_length(const std::uint8_t* mask, std::size_t length, std::size_t row) {
    const auto is_set = [](std::uint8_t value) { return value != 0; };
    const auto end = std::find_if_not(mask, mask + length, is_set);
    if (end == mask || std::any_of(end, mask + length, is_set))
        throw std::invalid_argument("mask row " + std::to_string(row) +
                                    " is not a prefix mask: one True or more, then only False");
    return static_cast<std::size_t>(end - mask);
}

void refuse_bad_tags(const std::int64_t* tags, std::size_t length, std::size_t labels) {
    const auto highest = static_cast<std::int64_t>(labels) - 1;
    for (std::size_t t = 0; t < length; ++t)
        if (tags[t] < 0 || tags[t] > highest)
            throw std::invalid_argument("tag " + std::to_string(tags[t]) + " at position " + std::to_string(t) +
                                        " is not in 0.." + std::to_string(highest));
}

void refuse_bad_spans(const std::vector<Span>& spans, std::size_t length) {
    const auto highest = static_cast<std::int64_t>(length) - 1;
    for (const Span& span : spans)
        if (span.first < 0 || span.last < span.first || span.last > highest)
            throw std::invalid_argument("span [" + std::to_string(span.first) + ", " + std::to_string(span.last) +
                                        "] is not ordered within 0.." + std::to_string(highest));
}

double log_sum_exp(const std::vector<double>& values) {
    const double highest = *std::max_element(values.begin(), values.end());
    if (highest == -infinity) return -infinity;
    double sum = 0;
    for (const double value : values) sum += std::exp(value - highest);
    return highest + std::log(sum);
}

}  // namespace

Crf::Crf(const float* start, const float* end, const float* transitions, std::size_t labels)
    : labels_(labels),
      stride_((labels + block_size - 1) / block_size * block_size),
      start_(start, start + labels),
      end_(end, end + labels),
      transitions_(labels * stride_) {
    if (labels == 0) throw std::invalid_argument("start_transitions is empty: a CRF needs one label or more");
    refuse_nan(start, labels, "start_transitions");
    refuse_nan(end, labels, "end_transitions");
    refuse_nan(transitions, labels * labels, "transitions");
    for (std::size_t i = 0; i < labels; ++i)
        std::copy_n(transitions + i * labels, labels, transitions_.begin() + i * stride_);
    for (const auto* scores : {&start_, &end_, &transitions_})
        highest_ = std::max(highest_, *std::max_element(scores->begin(), scores->end()));
}

// The Viterbi algorithm on one sequence, a position at a time.
class Crf::Viterbi {
public:
    // emissions: [length, labels], without NaN.
    Viterbi(const Crf& crf, const float* emissions, std::size_t length)
        : crf_(crf),
          emissions_(emissions),
          length_(length),
          from_(new std::int32_t[length * crf.stride_]),
          score_(crf.stride_),
          next_(crf.stride_),
          padded_(crf.stride_) {
        for (std::size_t j = 0; j < crf.labels_; ++j) score_[j] = crf.start_[j] + emissions[j];
    }

    // From position t - 1 to t; nothing beyond the sequence.
    template <typename Order>
    INLINE void advance(std::size_t t) {
        if (t >= length_) return;
        const float* emission = emissions_ + t * crf_.labels_;
        if (t * crf_.labels_ + crf_.stride_ > length_ * crf_.labels_) {  // the last block would reach beyond the end
            std::copy_n(emission, crf_.labels_, padded_.data());
            emission = padded_.data();
        }
        for (std::size_t j = 0; j < crf_.stride_; j += block_size)
            viterbi_block<Order>(score_.data(), emission + j, crf_.transitions_.data() + j, crf_.labels_, crf_.stride_,
                                 next_.data() + j, &from_[t * crf_.stride_ + j]);
        score_.swap(next_);
    }

    std::vector<std::int32_t> tags() const {
        constexpr Exceeds exceeds;
        std::vector<std::int32_t> tags(length_);
        std::int32_t& last = tags[length_ - 1];
        for (std::size_t j = 1; j < crf_.labels_; ++j)
            if (exceeds(score_[j] + crf_.end_[j], score_[last] + crf_.end_[last])) last = static_cast<std::int32_t>(j);
        for (std::size_t t = length_ - 1; t > 0; --t) tags[t - 1] = from_[t * crf_.stride_ + tags[t]];
        return tags;
    }

private:
    const Crf& crf_;
    const float* emissions_;
    std::size_t length_;
    std::unique_ptr<std::int32_t[]> from_;      // [length, stride]; the best tag before, row 0 unused
    std::vector<float> score_, next_, padded_;  // [stride]
};

// WIDE_VECTORS does not go with templates, hence two functions.
WIDE_VECTORS
void Crf::finish_numbers(std::vector<Viterbi>& sequences, std::size_t length) {
    for (std::size_t t = 1; t < length; ++t)
        for (Viterbi& sequence : sequences) sequence.advance<ExceedsNumber>(t);
}

WIDE_VECTORS
void Crf::finish_anything(std::vector<Viterbi>& sequences, std::size_t length) {
    for (std::size_t t = 1; t < length; ++t)
        for (Viterbi& sequence : sequences) sequence.advance<Exceeds>(t);
}

// NaN comes of opposite infinities, and so of nothing whose sum stays far below infinity.
bool Crf::stays_number(const float* emissions, std::size_t length) const {
    const float bound = std::numeric_limits<float>::max() / (4 * static_cast<float>(length));
    return highest_ < bound && all_below(emissions, length * labels_, bound);
}

std::vector<std::vector<std::int32_t>> Crf::decode(const float* emissions, const std::uint8_t* mask, std::size_t batch,
                                                   std::size_t length) const {
    std::vector<std::vector<std::int32_t>> tags;
    tags.reserve(batch);
    while (tags.size() < batch) {
        std::vector<Viterbi> sequences;
        bool numbers = true;
        for (std::size_t row = tags.size(); row < std::min(tags.size() + sequences_in_turn, batch); ++row) {
            const std::size_t valid = prefix_length(mask + row * length, length, row);
            const float* row_emissions = emissions + row * length * labels_;
            if (!stays_number(row_emissions, valid)) {
                refuse_nan(row_emissions, valid * labels_, "emissions row " + std::to_string(row));
                numbers = false;
            }
            sequences.emplace_back(*this, row_emissions, valid);
        }
        (numbers ? finish_numbers : finish_anything)(sequences, length);
        for (const Viterbi& sequence : sequences) tags.push_back(sequence.tags());
    }
    return tags;
}

// alpha[t][j]: log-sum of the scores of all tags of 0..t that end in j, the emission of t included.
std::vector<double> Crf::forward(const float* emissions, std::size_t length) const {
    std::vector<double> alpha(length * labels_), terms(labels_);  // [length, labels], [labels]
    for (std::size_t j = 0; j < labels_; ++j) alpha[j] = double{start_[j]} + emissions[j];
    for (std::size_t t = 1; t < length; ++t) {
        const double* before = &alpha[(t - 1) * labels_];
        for (std::size_t j = 0; j < labels_; ++j) {
            for (std::size_t i = 0; i < labels_; ++i) terms[i] = before[i] + transition(i, j);
            alpha[t * labels_ + j] = log_sum_exp(terms) + emissions[t * labels_ + j];
        }
    }
    return alpha;
}

// beta[t][i]: log-sum of the scores of all tags of t+1.. that follow i at t, the emission of t left out.
std::vector<double> Crf::backward(const float* emissions, std::size_t length) const {
    std::vector<double> beta(length * labels_), terms(labels_);  // [length, labels], [labels]
    std::copy(end_.begin(), end_.end(), beta.end() - labels_);
    for (std::size_t t = length - 1; t > 0; --t) {
        const double* after = &beta[t * labels_];
        for (std::size_t i = 0; i < labels_; ++i) {
            for (std::size_t j = 0; j < labels_; ++j)
                terms[j] = double{transition(i, j)} + emissions[t * labels_ + j] + after[j];
            beta[(t - 1) * labels_ + i] = log_sum_exp(terms);
        }
    }
    return beta;
}

std::vector<double> Crf::span_probabilities(const float* emissions, const std::int64_t* tags, std::size_t length,
                                            const std::vector<Span>& spans) const {
    if (length == 0) throw std::invalid_argument("emissions is empty: a sequence has one position or more");
    refuse_bad_tags(tags, length, labels_);
    refuse_bad_spans(spans, length);
    refuse_nan(emissions, length * labels_, "emissions");
    refuse_positive_infinity(emissions, length * labels_, "emissions");
    refuse_positive_infinity(start_.data(), start_.size(), "start_transitions");
    refuse_positive_infinity(end_.data(), end_.size(), "end_transitions");
    refuse_positive_infinity(transitions_.data(), transitions_.size(), "transitions");
    if (spans.empty()) return {};

    const std::vector<double> alpha = forward(emissions, length);
    const std::vector<double> beta = backward(emissions, length);
    std::vector<double> totals(alpha.end() - labels_, alpha.end());
    for (std::size_t j = 0; j < labels_; ++j) totals[j] += end_[j];
    const double log_z = log_sum_exp(totals);
    if (log_z == -infinity) throw std::invalid_argument("every tag sequence has the score -inf: none has a probability");

    std::vector<double> probabilities;
    probabilities.reserve(spans.size());
    for (const Span& span : spans) {
        double score = alpha[span.first * labels_ + tags[span.first]] + beta[span.last * labels_ + tags[span.last]];
        for (std::int64_t t = span.first + 1; t <= span.last; ++t)
            score += double{transition(tags[t - 1], tags[t])} + emissions[t * labels_ + tags[t]];
        probabilities.push_back(std::min(1.0, std::exp(score - log_z)));
    }
    return probabilities;
}

}  // namespace hvpnet
