// What BERT and DistilBERT share: encoders with learned positions, LayerNorm after each addition,
// and a head for classes, for masked tokens, or none (sentence embeddings).
#pragma once

#include "formats/decoder_family.h"

namespace slmc {

/// Names of the parts in a Hugging Face folder; empty where the family does not have them.
struct EncoderNames {
  std::string prefix, embeddings, layers;  ///< "bert.", "embeddings.", "encoder.layer."
  std::string types;                       ///< Of token types, after `embeddings`.
  std::vector<BlockPart> parts;
  std::string classifier_dense;  ///< The prefix included.
  std::string masked_dense, masked_norm, masked_weight, masked_bias;
};
std::vector<TensorSpec> encoder_tensors(const Architecture& arch, const EncoderNames& names);

/// What every encoder of these families is, and its head by the class's name.
void set_encoder_kind(const Json& config, const std::string& default_head, Architecture& arch,
                      const std::string& where);
/// Writes what set_encoder_kind reads. `prefix`: "Bert".
void write_encoder_kind(const Architecture& arch, const std::string& prefix, Json& config);

Architecture encoder_from_gguf(const GgufFile& file, const std::string& where);
/// Throws Error(kUnsupported) for a masked head and for a classifier other than BERT's.
void encoder_to_gguf(const Architecture& arch, GgufKeys& keys);

/// Names without "<model>." and with weight and bias for the gamma and beta of the first
/// checkpoints.
std::string encoder_spelling(const std::string& name, const std::string& model);

/// How the sentence encoder of a folder pools, as `slmc_pooling` of its configuration: what
/// sentence-transformers says in a file of its own.
void read_pooling(const std::string& folder, Json& config);

}  // namespace slmc
