#include "formats/masking.h"

#include "compress/core/error.h"
#include "compress/core/random.h"
#include "compress/core/text.h"

namespace slmc {

Masking masking_of(const Tokenizer& tokenizer, const Assets& assets, uint64_t seed,
                   const std::string& where) {
  Masking masking;
  masking.seed = seed;
  std::vector<std::string> names{"[MASK]", "<mask>"};
  if (!assets.tokenizer_config_json.empty()) {
    const Json config =
        parse_json(assets.tokenizer_config_json, cat(where, ": tokenizer_config.json"));
    const Json token =
        config.is_object() && config.contains("mask_token") ? config["mask_token"] : Json();
    if (token.is_string()) names = {token.get<std::string>()};
    if (token.is_object() && token.contains("content") && token["content"].is_string())
      names = {token["content"].get<std::string>()};
  }
  for (const std::string& name : names)
    if (masking.mask < 0) masking.mask = tokenizer.token_id(name);
  if (masking.mask < 0)
    throw_unsupported(cat(where, ": its tokenizer has no mask token (", join(names, ", "),
                          "), which a masked language model needs"));
  masking.special.resize(static_cast<size_t>(tokenizer.vocab_size()));
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id)
    masking.special[static_cast<size_t>(id)] = tokenizer.is_special(id) ? 1 : 0;
  return masking;
}

void mask_tokens(const Masking& masking, uint64_t stream, std::span<int32_t> ids,
                 const uint8_t* candidates, uint8_t* chosen) {
  // Neighbouring streams begin far apart.
  Random random(Random(masking.seed + stream * 0xd1342543de82ef95ull).next());
  const auto vocab = static_cast<uint64_t>(masking.special.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto id = static_cast<size_t>(ids[i]);
    const bool open = (candidates == nullptr || candidates[i] != 0) &&
                      (id >= masking.special.size() || masking.special[id] == 0);
    chosen[i] = open && random.uniform() < Masking::kShare ? 1 : 0;
    if (chosen[i] == 0) continue;
    const double kind = random.uniform();
    if (kind < Masking::kMasked)
      ids[i] = masking.mask;
    else if (kind < Masking::kMasked + Masking::kRandom)
      ids[i] = static_cast<int32_t>(random.below(vocab));
  }
}

}  // namespace slmc
