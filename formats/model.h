// Opening a checkpoint of any container as one thing: an architecture, canonical tensors, and the
// assets that travel with it.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "compress/core/json.h"
#include "compress/core/tensor.h"
#include "formats/architecture.h"

namespace slmc {

class GgufKeys;
class Tokenizer;

/// Where the runtime and the LibTorch module take weights from: an open file, or tensors in memory.
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  virtual const Architecture& arch() const = 0;
  virtual bool has(const std::string& name) const = 0;
  /// Canonical rows. Throws Error(kBadInput) when absent.
  virtual TensorView view(const std::string& name) const = 0;
  /// The bytes behind the tensor are not needed for now (their pages may be dropped).
  virtual void release(const std::string& name) const { static_cast<void>(name); }
};

struct TensorInfo {
  std::string name;       ///< Canonical.
  std::string file_name;  ///< As in the file.
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;  ///< Canonical.
  uint64_t bytes = 0;
};

/// Weights of another network that travel with a Hugging Face folder, such as a vision tower.
struct CarriedTensor {
  std::string name;  ///< As in the file.
  TensorView view;
};

/// What travels with the weights. Texts are the files' bytes; empty when absent.
struct Assets {
  std::string tokenizer_json;
  std::string tokenizer_config_json;
  std::string generation_config_json;
  std::string special_tokens_map_json;
  std::string chat_template;  ///< From chat_template.jinja or tokenizer_config.json, or the GGUF.
  /// Other small files of the folder, {path in it, text}: how a sentence encoder pools, how a
  /// multimodal model reads images.
  std::vector<std::pair<std::string, std::string>> files;
  std::vector<CarriedTensor> carried;
};

/// Of a Hugging Face folder, which need not hold a model.
Assets read_folder_assets(const std::string& folder);

class Model : public WeightSource {
 public:
  /// A Hugging Face folder or a GGUF file (told by its magic, not its name). Checks that every
  /// tensor of the architecture is there with the right shape and none is left over, before any
  /// data is read.
  static std::shared_ptr<const Model> open(const std::string& path) { return open(path, ""); }
  /// The same for writing it as `output`: where that is a GGUF that has no key for the model's
  /// scale of query-key products, the scale is folded into the query weights.
  static std::shared_ptr<const Model> open(const std::string& path, const std::string& output);

  const Architecture& arch() const override { return arch_; }
  bool has(const std::string& name) const override;
  TensorView view(const std::string& name) const override;
  void release(const std::string& name) const override;

  /// In canonical order.
  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  const TensorInfo& info(const std::string& name) const;
  /// Rows [row, row + count) as float, into out [count, columns].
  void read_rows(const std::string& name, int64_t row, int64_t count, float* out) const;
  const std::string& path() const { return path_; }
  /// "safetensors", "pytorch" or "gguf".
  const std::string& container() const { return container_; }
  /// config.json as found; for a GGUF rebuilt from the keys.
  const Json& config() const { return config_; }
  /// Read (for a GGUF rebuilt from its keys) at first use. Throws Error(kUnsupported) for a foreign
  /// GGUF whose tokenizer is not known.
  const Assets& assets() const;
  /// Texts that the file carries besides the weights: the GGUF keys "slmc.*" and "general.name", or
  /// safetensors' __metadata__.
  const std::vector<std::pair<std::string, std::string>>& metadata() const { return metadata_; }
  /// Hash of a tensor's canonical bytes, read in pieces whose pages are dropped behind.
  std::string tensor_hash(const std::string& name) const;
  /// The hashes that slmc's writer stored in the file, {name, hash}; empty for files of others.
  std::vector<std::pair<std::string, std::string>> stored_hashes() const;
  /// A GGUF's keys; null for a folder.
  const GgufKeys* gguf_keys() const;
  /// Bytes of all files of the checkpoint's weights.
  uint64_t size_bytes() const { return size_bytes_; }
  /// Built at first use. Throws Error(kBadInput) when the model has none.
  const Tokenizer& tokenizer() const;
  /// Hash of path-independent content: headers, config and tensor bytes.
  std::string content_hash() const;

 private:
  friend class ModelReader;
  struct Place;  // Where a tensor lies in a file, and how its rows are ordered there.
  struct Late;   // What is built at first use.
  Model();
  const Place& place(const std::string& name) const;
  static std::vector<std::byte> gather(const Place& place, const TensorInfo& info, int64_t row,
                                       int64_t count);
  Architecture arch_;
  std::vector<TensorInfo> tensors_;
  std::vector<Place> places_;  // Parallel to tensors_.
  std::unordered_map<std::string, size_t> index_;
  std::string path_, container_;
  Json config_;
  uint64_t size_bytes_ = 0;
  std::vector<std::pair<std::string, std::string>> metadata_;
  std::unique_ptr<Late> late_;

 public:
  ~Model() override;
};

/// What writing the model as `output` leaves out, or keeps only within limits, in sentences.
std::vector<std::string> container_notes(const Model& model, const std::string& output);

/// Decodes a row-major view's rows [row, row + count) of any known type to float.
void decode_rows(const TensorView& view, int64_t row, int64_t count, float* out);

/// Tensors held in memory; for training-time evaluation and tests.
class MemoryWeights : public WeightSource {
 public:
  explicit MemoryWeights(Architecture arch) : arch_(std::move(arch)) {}
  void add(const std::string& name, TensorView view);
  const Architecture& arch() const override { return arch_; }
  bool has(const std::string& name) const override;
  TensorView view(const std::string& name) const override;

 private:
  Architecture arch_;
  std::vector<std::pair<std::string, TensorView>> tensors_;
};

}  // namespace slmc
