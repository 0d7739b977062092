#include "examples/helpdesk/drills.h"

#include <algorithm>
#include <utility>

#include "compress/core/text.h"
#include "examples/helpdesk/grammar.h"
#include "examples/helpdesk/lexicon.h"

namespace slmc::helpdesk {
namespace {

std::string value_of(std::string_view field, Random& random) {
  const Product product = random_product(random, Split::kTrain);
  if (field == "product") return product.name;
  if (field == "brand") return random_brand(random, Split::kTrain);
  if (field == "model") return random_model(random);
  if (field == "part") return random_part(random, product.kind);
  if (field == "order") return random_order(random);
  if (field == "date") return random_date(random);
  if (field == "amount") return random_amount(random);
  if (field == "method") return random_payment_method(random);
  if (field == "code") return random_code(random);
  if (field == "email") return random_email(random, Split::kTrain);
  if (field == "error") return random_error(random);
  return random_city(random, Split::kTrain);
}

}  // namespace

Drill make_drill(uint64_t seed, uint64_t index) {
  // The order of an answer's lines.
  static const std::vector<std::string_view> fields = {"product", "brand", "model", "error",
                                                       "part",    "order", "date",  "amount",
                                                       "method",  "code",  "email", "city"};
  Random random(Random(seed).next() ^ (index * 0x9e3779b97f4a7c15ull) ^ 0xd5a1ull);
  random.next();
  std::vector<size_t> chosen;
  const size_t count = 3 + random.below(4);
  while (chosen.size() < count) {
    const size_t field = random.below(fields.size());
    if (std::find(chosen.begin(), chosen.end(), field) == chosen.end()) chosen.push_back(field);
  }
  std::vector<std::pair<size_t, std::string>> values;
  for (const size_t field : chosen) values.emplace_back(field, value_of(fields[field], random));

  const bool named = chance(random, 0.5);
  std::string message, answer;
  for (const auto& [field, value] : values)
    message += cat(message.empty() ? "" : ", ", named ? cat(fields[field], " ") : "", value);
  std::sort(values.begin(), values.end());
  for (const auto& [field, value] : values)
    answer += cat(answer.empty() ? "" : "\n", fields[field], ": ", value);
  return {cat("<|im_start|>user\n", message, "<|im_end|>\n<|im_start|>assistant\n"),
          cat(answer, "<|im_end|>")};
}

}  // namespace slmc::helpdesk
