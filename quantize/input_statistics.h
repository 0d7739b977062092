// Gathers what is known of a linear layer's inputs, window by window. Sums run over tokens in
// ascending order, so they are the same bits for any number of threads.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "compress/core/linear_statistics.h"
#include "quantize/input_histogram.h"

namespace slmc {

class InputStatistics {
 public:
  /// `name`: the layer, for errors. `hessian`: gather x x^T too, width^2 floats.
  InputStatistics(std::string name, int64_t width, bool hessian);

  int64_t width() const { return width_; }
  /// From here on magnitudes are counted too.
  void count_magnitudes() { counted_ = true; }
  /// Of all channels together.
  const InputHistogram& magnitudes() const { return histogram_; }
  bool counts_magnitudes() const { return counted_; }
  /// `x` [tokens][width]. Throws Error(kBadInput) naming layer, token and channel of the first
  /// value that is not finite.
  void add(const float* x, int64_t tokens);
  /// That check alone, of tokens that are to be added next.
  void check(const float* x, int64_t tokens) const;
  /// Adds to the mean of difference x^T; `difference` [tokens][height], `x` [tokens][width].
  void add_cross(const float* difference, int64_t height, const float* x, int64_t tokens);

  /// The sums themselves, for whoever adds to them in another place (LibTorch's device) in place of
  /// add and add_cross, and then says of how many tokens they are.
  struct Sums {
    double *values, *squares, *magnitudes;  ///< [width]
    float* peaks;                           ///< [width]: largest |x|.
    float* products;  ///< [width][stride]: of x x^T, from the diagonal on; null without a Hessian.
    float* cross;     ///< [height][stride]; null for height 0.
    int64_t stride;
  };
  Sums sums(int64_t height);
  void added(int64_t tokens, int64_t cross_tokens);
  /// Of tokens that are added so.
  void count(const float* x, int64_t tokens) { histogram_.add(x, tokens * width_); }

  /// [height][width], the mean over all tokens added; empties it.
  std::vector<float> finish_cross();
  /// Means over all tokens added.
  LinearStatistics finish() &&;

 private:
  void add_products(const float* left, int64_t height, const float* x, int64_t tokens,
                    bool symmetric, std::vector<float>& sums);

  std::string name_;
  int64_t width_, padded_, tokens_ = 0,
                           cross_tokens_ = 0;  // Rows of the Hessian are padded to whole panels.
  bool counted_ = false;
  InputHistogram histogram_;
  std::vector<double> sums_, squares_, magnitudes_;  // [width]
  std::vector<float> peaks_;                         // [width]
  std::vector<float> hessian_;                       // [width][padded], upper half while gathering.
  std::vector<float> cross_;                         // [height][padded]
  std::vector<float> panels_, columns_;  // The window as panels [p][token][16] and as columns.
};

}  // namespace slmc
