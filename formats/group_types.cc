#include "formats/group_types.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
#include <utility>

#include "compress/core/error.h"
#include "compress/core/half.h"
#include "compress/core/text.h"
#include "formats/blocks/group.h"

namespace slmc {
namespace {

using PlanRow = void (*)(const float*, const float*, int64_t, std::byte*);

struct Entry {
  DType type;
  GroupFacts facts;
  PlanRow plan;
};

constexpr InputRounding kNone = InputRounding::kNone;

const Entry kEntries[] = {
    {kI4_G32, {4, 32, false, kNone}, group::I4<32>::plan_row},
    {kI4_G64, {4, 64, false, kNone}, group::I4<64>::plan_row},
    {kI4_G128, {4, 128, false, kNone}, group::I4<128>::plan_row},
    {kI4_Row, {4, 0, false, kNone}, group::I4Row::plan_row},
    {kU4_G32, {4, 32, true, kNone}, group::U4<32>::plan_row},
    {kU4_G64, {4, 64, true, kNone}, group::U4<64>::plan_row},
    {kU4_G128, {4, 128, true, kNone}, group::U4<128>::plan_row},
    {kU4_Row, {4, 0, true, kNone}, group::U4Row::plan_row},
    {kI8_G32, {8, 32, false, kNone}, group::I8<32>::plan_row},
    {kI8_G64, {8, 64, false, kNone}, group::I8<64>::plan_row},
    {kI8_G128, {8, 128, false, kNone}, group::I8<128>::plan_row},
    {kI8_Row, {8, 0, false, kNone}, group::I8Row::plan_row},
    {kI8A8_Row, {8, 0, false, InputRounding::kToken}, group::I8Row::plan_row},
    {kI8S8_Row, {8, 0, false, InputRounding::kStatic}, group::I8StaticRow::plan_row}};

const Entry* find_entry(DType type) {
  const auto* found = std::find_if(std::begin(kEntries), std::end(kEntries),
                                   [type](const Entry& entry) { return entry.type == type; });
  return found == std::end(kEntries) ? nullptr : found;
}

const Entry& entry_of(DType type) {
  const Entry* found = find_entry(type);
  SLMC_CHECK(found != nullptr, cat(dtype_name(type), " is not a group type"));
  return *found;
}

}  // namespace

bool is_group_type(DType type) { return find_entry(type) != nullptr; }

GroupFacts group_facts(DType type) { return entry_of(type).facts; }

DType group_type(const GroupFacts& facts, const std::string& where) {
  for (const Entry& entry : kEntries) {
    if (entry.facts == facts) return entry.type;
  }
  throw_unsupported(cat(where, ": ", facts.bits, "-bit weights in ",
                        facts.group > 0 ? cat("groups of ", facts.group) : "rows",
                        facts.zero_point ? " with zero points" : "",
                        facts.inputs == InputRounding::kNone ? "" : " for 8-bit inputs",
                        " are not supported; 4 bits take groups of 32, 64, 128 or the row, 8 bits "
                        "the same without zero points, and 8-bit inputs the row"));
}

float storable_scale(float scale) {
  constexpr float kLeast = 0x1p-24f;
  if (!(scale > kLeast)) return kLeast;
  return f16_to_float(float_to_f16(bf16_to_float(float_to_bf16(scale))));
}

void plan_group_row(DType type, const float* values, const float* weights, int64_t n,
                    std::byte* out) {
  entry_of(type).plan(values, weights, n, out);
}

float input_scale(const TensorView& weight) {
  SLMC_CHECK(weight.dtype == kI8S8_Row, "only this type holds an input scale");
  uint16_t bits;
  std::memcpy(&bits, weight.data + 2, sizeof bits);
  return f16_to_float(bits);
}

void set_input_scale(float scale, std::byte* blocks, uint64_t bytes) {
  if (!std::isfinite(scale) || scale <= 0)
    throw_bad_input(cat("an input scale of ", scale, "; expected a positive, finite number"));
  const uint16_t bits = float_to_f16(storable_scale(scale));
  const auto step = static_cast<uint64_t>(dtype_block_bytes(kI8S8_Row));
  for (uint64_t at = 0; at < bytes; at += step) std::memcpy(blocks + at + 2, &bits, sizeof bits);
}

}  // namespace slmc
