#include "distill/hidden_pairs.h"

#include <cmath>

#include "compress/core/error.h"
#include "compress/core/field_text.h"
#include "compress/core/random.h"
#include "compress/core/text.h"
#include "distill/training.h"

namespace slmc {
namespace {

int64_t block_number(const std::string& text, const char* whose, int64_t layers) {
  int64_t value = 0;
  set_field_text({.name = "layers", .help = "", .min = 0, .max = static_cast<double>(layers - 1)},
                 cat("loss: layers: ", whose, " block"), text, value);
  return value;
}

std::vector<HiddenPair> all_pairs(const LossMixture& losses, const Architecture& student,
                                  const Architecture& teacher) {
  std::vector<HiddenPair> all;
  for (size_t term = 0; term < losses.size(); ++term)
    for (HiddenPair& pair : hidden_pairs(losses, term, student, teacher))
      all.push_back(std::move(pair));
  return all;
}

}  // namespace

std::vector<HiddenPair> hidden_pairs(const LossMixture& losses, size_t term,
                                     const Architecture& student, const Architecture& teacher) {
  std::vector<HiddenPair> pairs;
  const HiddenLoss* const loss = losses[term].hidden();
  if (loss == nullptr) return pairs;
  const std::string& text = loss->layers();
  for (int64_t i = 0; text.empty() && i < student.layers; ++i)
    pairs.push_back({i, ((i + 1) * teacher.layers + student.layers - 1) / student.layers - 1, ""});
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('+', at), text.size());
    const std::string pair = text.substr(at, end - at);
    const size_t middle = pair.find(':');
    if (middle == std::string::npos)
      throw_usage(cat("loss: layers: expected STUDENT:TEACHER+..., found '", pair, "'"));
    pairs.push_back({block_number(pair.substr(0, middle), "student's", student.layers),
                     block_number(pair.substr(middle + 1), "teacher's", teacher.layers), ""});
    at = end + 1;
  }
  if (student.hidden != teacher.hidden)
    for (size_t i = 0; i < pairs.size(); ++i)
      pairs[i].projection = cat("hidden.", term, ".", i, ".projection");
  return pairs;
}

void add_projections(const LossMixture& losses, const Architecture& student,
                     const Architecture& teacher, ParameterLayout& layout) {
  for (const HiddenPair& pair : all_pairs(losses, student, teacher)) {
    if (pair.projection.empty()) continue;
    layout.slots.push_back({.name = pair.projection,
                            .shape = {teacher.hidden, student.hidden},
                            .offset = layout.total,
                            .size = teacher.hidden * student.hidden,
                            .decay = false});
    layout.total += layout.slots.back().size;
  }
}

std::shared_ptr<const WeightSource> initial_projections(const LossMixture& losses,
                                                        const Architecture& student,
                                                        const Architecture& teacher,
                                                        uint64_t seed) {
  auto weights = std::make_shared<MemoryWeights>(student);
  const double deviation = 1.0 / std::sqrt(static_cast<double>(student.hidden));
  uint64_t number = 0;
  for (const HiddenPair& pair : all_pairs(losses, student, teacher)) {
    if (pair.projection.empty()) continue;
    auto values =
        std::make_shared<std::vector<float>>(static_cast<size_t>(teacher.hidden * student.hidden));
    Random random(seed + 0x9e3779b97f4a7c15ull * ++number);
    for (float& value : *values) value = static_cast<float>(deviation * random.normal());
    weights->add(pair.projection, {.data = reinterpret_cast<const std::byte*>(values->data()),
                                   .dtype = DType::kF32,
                                   .shape = {teacher.hidden, student.hidden},
                                   .owner = values});
  }
  return weights;
}

}  // namespace slmc
