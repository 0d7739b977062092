// GGUF v3: typed keys and values, tensor directory, aligned data. Source: ggml's docs/gguf.md.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "compress/core/mapped_file.h"
#include "compress/core/tensor.h"

namespace slmc {

struct GgufValue;
using GgufArray = std::variant<std::vector<uint8_t>, std::vector<int8_t>, std::vector<uint16_t>,
                               std::vector<int16_t>, std::vector<uint32_t>, std::vector<int32_t>,
                               std::vector<float>, std::vector<bool>, std::vector<std::string>,
                               std::vector<uint64_t>, std::vector<int64_t>, std::vector<double>>;

struct GgufValue : std::variant<uint8_t, int8_t, uint16_t, int16_t, uint32_t, int32_t, float, bool,
                                std::string, uint64_t, int64_t, double, GgufArray> {
  using variant::variant;
};

/// Keys in file order.
class GgufKeys {
 public:
  GgufKeys() = default;
  explicit GgufKeys(std::vector<std::pair<std::string, GgufValue>> items)
      : items_(std::move(items)) {}
  void set(const std::string& key, GgufValue value);  ///< Replaces or appends.
  const GgufValue* find(const std::string& key) const;
  bool has(const std::string& key) const { return find(key) != nullptr; }
  /// Typed access. The ones without a default throw Error(kBadInput) naming `where` and the key
  /// when it is absent or of another kind; any integer type is accepted for integers.
  int64_t integer(const std::string& key, const std::string& where) const;
  int64_t integer_or(const std::string& key, int64_t fallback, const std::string& where) const;
  double number(const std::string& key, const std::string& where) const;
  double number_or(const std::string& key, double fallback, const std::string& where) const;
  bool boolean_or(const std::string& key, bool fallback, const std::string& where) const;
  std::string string(const std::string& key, const std::string& where) const;
  std::string string_or(const std::string& key, const std::string& fallback,
                        const std::string& where) const;
  std::vector<std::string> strings(const std::string& key, const std::string& where) const;
  std::vector<int64_t> integers(const std::string& key, const std::string& where) const;
  std::vector<float> floats(const std::string& key, const std::string& where) const;
  std::vector<double> numbers(const std::string& key, const std::string& where) const;
  const std::vector<std::pair<std::string, GgufValue>>& items() const { return items_; }

 private:
  std::vector<std::pair<std::string, GgufValue>> items_;
};

/// One entry of the tensor directory. `shape` is row-major (outermost first), the reverse of the
/// file's order.
struct GgufTensor {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  uint64_t offset = 0;  ///< From the start of the file.
  uint64_t bytes = 0;
};

/// A parsed file; every count, length and offset is checked against the file's size. Throws
/// Error(kBadInput), Error(kUnsupported) for versions other than 2 and 3 and for tensor types that
/// slmc does not know.
struct GgufFile {
  GgufKeys keys;
  std::vector<GgufTensor> tensors;
  std::shared_ptr<const MappedFile> file;
  static GgufFile open(const std::string& path);
  const GgufTensor* find(const std::string& name) const;
};

/// The bytes before the data section (magic to directory, padded), given tensors whose `offset` is
/// relative to the data section.
std::string gguf_header(const GgufKeys& keys, const std::vector<GgufTensor>& tensors,
                        uint64_t alignment = 32);

}  // namespace slmc
