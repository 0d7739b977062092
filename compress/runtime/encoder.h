// The reference inference of encoders (BERT): bidirectional, a sequence at a time, so that what
// else is in a batch changes nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "compress/runtime/decoder.h"

namespace slmc {

class Encoder {
 public:
  /// Repacks the weights, dropping the source's pages behind. `source` is not used after this.
  static std::unique_ptr<Encoder> create(const WeightSource& source, Activations mode);
  virtual ~Encoder() = default;

  virtual const Architecture& arch() const = 0;
  /// Values in a row of the result: the vocabulary, the classes or the width.
  virtual int64_t columns() const = 0;
  /// Rows for `tokens` ids: one for each with a masked head, else one.
  virtual int64_t rows(int64_t tokens) const = 0;
  /// [rows, columns] for one sequence, special tokens included. `types`: the segment of each id, as
  /// a pair of texts has; empty: all 0. A model that knows one segment or none takes all ids alike.
  /// Throws Error(kUsage) if the sequence is empty or longer than the context; an id outside the
  /// vocabulary or an unknown segment is Error(kBadInput).
  virtual std::vector<float> encode(std::span<const int32_t> ids,
                                    std::span<const int32_t> types) const = 0;
  std::vector<float> encode(std::span<const int32_t> ids) const { return encode(ids, {}); }
  /// A masked head's logits at the positions `rows` alone, [rows, columns], to the same bits.
  /// `rows` ascends. Throws as encode.
  virtual std::vector<float> encode_rows(std::span<const int32_t> ids,
                                         std::span<const int64_t> rows) const = 0;
};

}  // namespace slmc
