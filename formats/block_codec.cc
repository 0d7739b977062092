#include "formats/block_codec.h"

#include "compress/core/error.h"
#include "compress/core/text.h"

namespace slmc {

const std::vector<const BlockCodec& (*)()>&
codec_table();  // Written by the build from blocks/*.cc.

const std::vector<const BlockCodec*>& block_codecs() {
  static const std::vector<const BlockCodec*> codecs = [] {
    std::vector<const BlockCodec*> all;
    for (const auto& codec : codec_table()) all.push_back(&codec());
    return all;
  }();
  return codecs;
}

const BlockCodec* find_block_codec(DType type) {
  for (const BlockCodec* codec : block_codecs()) {
    if (codec->dtype == type) return codec;
  }
  return nullptr;
}

const BlockCodec& block_codec(DType type) {
  const BlockCodec* codec = find_block_codec(type);
  if (codec == nullptr)
    throw_unsupported(cat("type ", dtype_name(type), " cannot be decoded by this version of slmc"));
  return *codec;
}

}  // namespace slmc
