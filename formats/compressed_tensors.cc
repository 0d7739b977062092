#include "formats/compressed_tensors.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <utility>

#include "compress/core/error.h"
#include "compress/core/half.h"
#include "compress/core/text.h"

namespace slmc {
namespace {

constexpr int64_t kZerosPerWord = 8;

/// How one type's blocks lie in memory.
struct Blocks {
  explicit Blocks(DType type)
      : facts(group_facts(type)),
        size(dtype_block(type)),
        bytes(dtype_block_bytes(type)),
        code_bytes(size * facts.bits / 8),
        header(bytes - code_bytes) {}
  GroupFacts facts;
  int64_t size, bytes, code_bytes, header;
  /// Blocks that share a scale.
  int64_t shared(int64_t columns) const { return facts.group == 0 ? columns / size : 1; }
  int64_t groups(int64_t columns) const { return columns / size / shared(columns); }
};

size_t part_index(const GroupWeight& weight, const std::string& suffix) {
  for (size_t i = 0; i < weight.parts.size(); ++i) {
    if (weight.parts[i].suffix == suffix) return i;
  }
  SLMC_CHECK(false, cat("a weight without ", suffix));
  return 0;
}

void put_scale(uint16_t half, DType type, std::byte* out) {
  const uint16_t bits = type == DType::kF16 ? half : float_to_bf16(f16_to_float(half));
  std::memcpy(out, &bits, 2);
}

uint16_t get_scale(const std::byte* in, DType type) {
  uint16_t bits;
  std::memcpy(&bits, in, 2);
  if (type == DType::kF16) return bits;
  const uint16_t half = float_to_f16(bf16_to_float(bits));
  if (f16_to_float(half) != bf16_to_float(bits))
    throw_unsupported(cat("compressed-tensors: a scale of ", bf16_to_float(bits),
                          " is beyond what f16 holds; give the original checkpoint"));
  return half;
}

/// pack-quantized keeps signed bytes plus 128; int-quantized as they are.
void copy_codes(const std::byte* from, int64_t count, bool offset, std::byte* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = offset ? from[i] ^ std::byte{0x80} : from[i];
}

/// Zero points of whole words, 4 bits each, kZerosPerWord rows in a word.
std::vector<std::byte> pack_zero_points(const std::vector<uint8_t>& zeros, int64_t rows) {
  const int64_t groups = static_cast<int64_t>(zeros.size()) / std::max<int64_t>(1, rows);
  std::vector<uint32_t> words(
      static_cast<size_t>((rows + kZerosPerWord - 1) / kZerosPerWord * groups), 0);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t g = 0; g < groups; ++g)
      words[static_cast<size_t>(r / kZerosPerWord * groups + g)] |=
          static_cast<uint32_t>(zeros[static_cast<size_t>(r * groups + g)])
          << (r % kZerosPerWord * 4);
  }
  std::vector<std::byte> bytes(words.size() * 4);
  std::memcpy(bytes.data(), words.data(), bytes.size());
  return bytes;
}

}  // namespace

bool written_packed(DType type) { return group_facts(type).inputs == InputRounding::kNone; }

GroupWeight group_weight(DType type, const std::vector<int64_t>& shape, int64_t first_row,
                         int64_t rows, DType scale_type, bool packed, const std::string& tensor) {
  const Blocks blocks(type);
  const int64_t whole = shape.at(0), columns = shape.at(1);
  if (columns % blocks.size != 0) {
    throw_unsupported(cat("tensor ", tensor, ": rows of ", columns, " do not divide by the ",
                          blocks.size, " of ", dtype_name(type)));
  }
  if (blocks.facts.zero_point && rows != whole &&
      (first_row % kZerosPerWord != 0 || rows % kZerosPerWord != 0)) {
    throw_unsupported(cat("tensor ", tensor, ": rows ", first_row, " to ", first_row + rows,
                          " of a fused tensor share words of zero points with others; choose "
                          "symmetric codes"));
  }
  GroupWeight weight{type, shape, first_row, scale_type, packed};
  const int64_t groups = blocks.groups(columns);
  if (packed) {
    weight.parts.push_back(
        {"weight_packed", DType::kI32, {whole, columns * blocks.facts.bits / 32}});
  } else {
    weight.parts.push_back({"weight", DType::kI8, shape});
  }
  weight.parts.push_back({"weight_scale", scale_type, {whole, groups}});
  if (blocks.facts.zero_point) {
    weight.parts.push_back(
        {"weight_zero_point", DType::kI32, {(whole + kZerosPerWord - 1) / kZerosPerWord, groups}});
  }
  if (packed) weight.parts.push_back({"weight_shape", DType::kI64, {2}});
  if (blocks.facts.inputs == InputRounding::kStatic)
    weight.parts.push_back({"input_scale", scale_type, {1}});
  for (GroupPart& part : weight.parts)
    part.bytes = static_cast<uint64_t>(element_count(part.shape)) *
                 static_cast<uint64_t>(dtype_block_bytes(part.dtype));
  return weight;
}

void write_group_rows(const GroupWeight& weight, int64_t rows, int64_t row, int64_t count,
                      const std::byte* from, std::vector<uint8_t>& zeros, const PartWriter& put) {
  const Blocks blocks(weight.type);
  const int64_t columns = weight.shape[1], shared = blocks.shared(columns),
                groups = blocks.groups(columns), row_codes = columns * blocks.facts.bits / 8;
  const bool offset = weight.packed && blocks.facts.bits == 8;
  std::vector<std::byte> codes(static_cast<size_t>(row_codes * count)),
      scales(static_cast<size_t>(groups * 2 * count));
  std::byte *code = codes.data(), *scale = scales.data();
  const std::byte* const last = from + (count * columns / blocks.size - 1) * blocks.bytes;
  if (blocks.facts.zero_point) zeros.resize(static_cast<size_t>(rows * groups));
  for (int64_t r = row; r < row + count; ++r) {
    for (int64_t b = 0; b < columns / blocks.size; ++b, from += blocks.bytes) {
      copy_codes(from + blocks.header, blocks.code_bytes, offset, code);
      code += blocks.code_bytes;
      if (b % shared != 0) {
        SLMC_CHECK(std::memcmp(from, from - blocks.bytes, static_cast<size_t>(blocks.header)) == 0,
                   "blocks of a row share their scale");
        continue;
      }
      uint16_t half;
      std::memcpy(&half, from, 2);
      put_scale(half, weight.scale_type, scale);
      scale += 2;
      if (blocks.facts.zero_point)
        zeros[static_cast<size_t>(r * groups + b / shared)] = std::to_integer<uint8_t>(from[2]);
    }
  }
  const auto first = static_cast<uint64_t>(weight.first_row + row);
  put(0, first * static_cast<uint64_t>(row_codes), codes.data(), codes.size());
  put(1, first * static_cast<uint64_t>(groups * 2), scales.data(), scales.size());
  if (row + count < rows) return;
  if (blocks.facts.zero_point) {
    const std::vector<std::byte> words = pack_zero_points(zeros, rows);
    put(2, static_cast<uint64_t>(weight.first_row / kZerosPerWord * groups * 4), words.data(),
        words.size());
    zeros = {};
  }
  if (weight.packed) {
    put(part_index(weight, "weight_shape"), 0,
        reinterpret_cast<const std::byte*>(weight.shape.data()), 2 * sizeof(int64_t));
  }
  if (blocks.facts.inputs == InputRounding::kStatic) {
    uint16_t half;
    std::memcpy(&half, last + 2, 2);
    SLMC_CHECK(half != 0, "a layer without the scale of its inputs");
    std::byte bytes[2];
    put_scale(half, weight.scale_type, bytes);
    put(part_index(weight, "input_scale"), 0, bytes, sizeof bytes);
  }
}

void read_group_rows(const GroupWeight& weight, int64_t row, int64_t count, const PartReader& get,
                     std::byte* to) {
  if (count == 0) return;
  const Blocks blocks(weight.type);
  const int64_t columns = weight.shape[1], shared = blocks.shared(columns),
                groups = blocks.groups(columns), row_codes = columns * blocks.facts.bits / 8,
                first = weight.first_row + row;
  const bool offset = weight.packed && blocks.facts.bits == 8;
  const std::byte* code =
      get(0, static_cast<uint64_t>(first * row_codes), static_cast<uint64_t>(count * row_codes));
  const std::byte* scale =
      get(1, static_cast<uint64_t>(first * groups * 2), static_cast<uint64_t>(count * groups * 2));
  const int64_t word_row = first / kZerosPerWord,
                word_rows = (first + count - 1) / kZerosPerWord - word_row + 1;
  const std::byte* words = blocks.facts.zero_point
                               ? get(2, static_cast<uint64_t>(word_row * groups * 4),
                                     static_cast<uint64_t>(word_rows * groups * 4))
                               : nullptr;
  uint16_t inputs = 0;
  if (blocks.facts.inputs == InputRounding::kStatic)
    inputs = get_scale(get(part_index(weight, "input_scale"), 0, 2), weight.scale_type);
  for (int64_t r = 0; r < count; ++r) {
    for (int64_t b = 0; b < columns / blocks.size; ++b, to += blocks.bytes) {
      const int64_t group = b / shared;
      const uint16_t half = get_scale(scale + (r * groups + group) * 2, weight.scale_type);
      std::memcpy(to, &half, 2);
      if (words != nullptr) {
        uint32_t word;
        const int64_t at = (first + r) / kZerosPerWord - word_row;
        std::memcpy(&word, words + (at * groups + group) * 4, 4);
        to[2] = static_cast<std::byte>(word >> ((first + r) % kZerosPerWord * 4) & 15u);
        to[3] = std::byte{0};
      }
      if (inputs != 0) std::memcpy(to + 2, &inputs, 2);
      copy_codes(code, blocks.code_bytes, offset, to + blocks.header);
      code += blocks.code_bytes;
    }
  }
}

namespace {

/// "quantization_config" or null; of a multimodal model it is on top.
Json quantization(const Json& config) {
  return config.is_object() ? config.value("quantization_config", Json()) : Json();
}

/// The arguments of a rounding to 8 bits, with a scale a token or a fixed one for all.
Json rounding_arguments(bool tokens) {
  return {{"num_bits", 8},
          {"type", "int"},
          {"symmetric", true},
          {"strategy", tokens ? "token" : "tensor"},
          {"dynamic", tokens},
          {"group_size", Json()},
          {"actorder", Json()},
          {"block_structure", Json()},
          {"observer", tokens ? Json() : Json("minmax")},
          {"observer_kwargs", Json::object()}};
}

Json input_arguments(InputRounding rounding) {
  if (rounding == InputRounding::kNone) return {};
  return rounding_arguments(rounding == InputRounding::kToken);
}

}  // namespace

Json group_config(const std::vector<DType>& types, const std::vector<std::string>& ignored,
                  bool cache) {
  const std::set<DType> distinct(types.begin(), types.end());
  SLMC_CHECK(!distinct.empty(), "there is a quantized weight");
  if (distinct.size() > 1) {
    throw_unsupported(cat("compressed-tensors: the weights have ", distinct.size(),
                          " quantized types; one for all is supported"));
  }
  const GroupFacts facts = group_facts(*distinct.begin());
  const std::string format = written_packed(*distinct.begin()) ? "pack-quantized" : "int-quantized";
  const Json weights = {{"num_bits", facts.bits},
                        {"type", "int"},
                        {"symmetric", !facts.zero_point},
                        {"strategy", facts.group > 0 ? "group" : "channel"},
                        {"group_size", facts.group > 0 ? Json(facts.group) : Json()},
                        {"dynamic", false},
                        {"actorder", Json()},
                        {"block_structure", Json()},
                        {"observer", "minmax"},
                        {"observer_kwargs", Json::object()}};
  return {{"quant_method", "compressed-tensors"},
          {"format", format},
          {"quantization_status", "compressed"},
          {"global_compression_ratio", Json()},
          {"ignore", ignored},
          {"kv_cache_scheme", cache ? rounding_arguments(false) : Json()},
          {"config_groups",
           {{"group_0",
             {{"targets", {"Linear"}},
              {"format", format},
              {"weights", weights},
              {"input_activations", input_arguments(facts.inputs)},
              {"output_activations", Json()}}}}}};
}

void check_quantization_config(const Json& config, const std::string& where) {
  const Json whole = quantization(config);
  if (whole.is_null()) return;
  const auto refuse = [&](const std::string& what) {
    throw_unsupported(cat(where, ": quantization_config: ", what,
                          "; slmc reads compressed-tensors' integers (w4a16, w8a16, w8a8), else "
                          "give the original checkpoint"));
  };
  if (!whole.is_object() || whole.value("quant_method", "") != "compressed-tensors")
    refuse("a checkpoint that is quantized already in another format");
  const Json cache = whole.value("kv_cache_scheme", Json());
  if (!cache.is_null() &&
      (cache.value("num_bits", 0) != 8 || cache.value("type", "") != "int" ||
       !cache.value("symmetric", true) || cache.value("strategy", "") != "tensor" ||
       cache.value("dynamic", Json(false)) != Json(false)))
    refuse("a cache other than 8 symmetric bits of int with one fixed scale a tensor");
  const Json groups = whole.value("config_groups", Json());
  if (!groups.is_object() || groups.size() != 1)
    refuse(cat("expected one group of layers, found ", groups.size()));
  const Json& group = groups.front();
  const Json weights = group.value("weights", Json()),
             inputs = group.value("input_activations", Json());
  if (!weights.is_object() || weights.value("type", "int") != "int") refuse("weights of floats");
  if (!group.value("output_activations", Json()).is_null()) refuse("rounded outputs");
  if (inputs.is_null()) return;
  const std::string strategy = inputs.value("strategy", "");
  const bool dynamic = inputs.value("dynamic", Json(false)) == Json(true);
  if (inputs.value("num_bits", 0) != 8 || inputs.value("type", "int") != "int" ||
      !inputs.value("symmetric", true) || strategy != (dynamic ? "token" : "tensor")) {
    refuse(
        "inputs are rounded in a way that is not known: expected 8 symmetric bits, dynamic by "
        "token or static by tensor");
  }
}

bool fixes_cache(const Json& config) {
  const Json whole = quantization(config);
  return !whole.is_null() && !whole.value("kv_cache_scheme", Json()).is_null();
}

int64_t weight_group(const Json& config) {
  const Json whole = quantization(config);
  if (whole.is_null()) return 0;
  const Json weights = whole.at("config_groups").front().at("weights");
  const Json size = weights.value("group_size", Json());
  const bool grouped = weights.value("strategy", Json()) == Json("group");
  return grouped && size.is_number_integer() ? size.get<int64_t>() : 0;
}

InputRounding input_rounding(const Json& config) {
  const Json whole = quantization(config);
  if (whole.is_null()) return InputRounding::kNone;
  const Json inputs = whole.at("config_groups").front().value("input_activations", Json());
  if (inputs.is_null()) return InputRounding::kNone;
  return inputs.value("dynamic", Json(false)) == Json(true) ? InputRounding::kToken
                                                            : InputRounding::kStatic;
}

}  // namespace slmc
