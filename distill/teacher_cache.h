// A teacher's knowledge on disk: for every position of packed training text the k best tokens with
// their log-probabilities, so that students are trained with the teacher nowhere in memory. The
// folder describes itself: text, tokenizer, k, temperatures and checksums are in it.
//
// cache.json   what it is (below), shards with their hashes
// tokens.bin   int32 ids [windows * context + 1], then one byte an id: bit 0 learned, bit 1 first
//              of a document
// tokenizer/   the teacher's tokenizer files
// shard-N.bin  `shard_windows` windows (the last fewer) of `context` records. A record,
// little-endian:
//              float32 [temperatures]: log sum exp(z/T) - log(sum exp z)/T, for each but T = 1
//              ids, best first, `id_bits` bits each, least significant first, padded to a byte
//              values [k], float16 or float32: log p at T = 1
//              float32 [hidden blocks, width]: what those blocks of the teacher give
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "compress/core/atomic_file.h"
#include "compress/core/json.h"
#include "compress/core/mapped_file.h"
#include "distill/data.h"
#include "formats/architecture.h"

namespace slmc {

struct TeacherCacheHeader {
  std::string teacher;       ///< Where the teacher was.
  std::string teacher_hash;  ///< Model::content_hash
  std::string tokenizer_hash;
  std::string data_hash;  ///< PackedData::hash
  int64_t vocab = 0;      ///< Tokens over which the teacher's softmax goes; padding is left out.
  int64_t k = 0;
  bool float32 = false;              ///< Type of the values.
  std::vector<double> temperatures;  ///< Besides 1.
  int64_t context = 0, windows = 0, documents = 0, tokens = 0;
  bool isolate_documents = false, eos = true;
  uint64_t seed = 0;
  int64_t shard_windows = 0;
  std::vector<int64_t> hidden_blocks;    ///< Counted from 0, ascending; none: no hidden states.
  int64_t hidden_width = 0, layers = 0;  ///< The teacher's; 0 without them.

  int64_t id_bits() const;
  int64_t record_bytes() const;
  int64_t hidden_bytes() const {  ///< Of a record, at its end.
    return static_cast<int64_t>(hidden_blocks.size()) * hidden_width * 4;
  }
  bool has_block(int64_t block) const;
  int64_t shards() const { return (windows + shard_windows - 1) / shard_windows; }
  int64_t windows_in(int64_t shard) const;
  Json to_json() const;
  /// Throws Error(kBadInput) naming `where`.
  static TeacherCacheHeader from_json(const Json& json, const std::string& where);
};

class TeacherCache {
 public:
  /// True if `path` is a folder with a cache.json of ours.
  static bool is_one(const std::string& path);
  /// Checks header, sizes and the text's hash. Throws Error(kBadInput).
  static std::shared_ptr<const TeacherCache> open(const std::string& path);

  const TeacherCacheHeader& header() const { return header_; }
  const std::string& path() const { return path_; }
  std::string tokenizer_path() const { return path_ + "/tokenizer"; }
  /// The text, packed as it was when the teacher read it.
  PackedData data() const;
  /// Throws Error(kUsage) naming those there are, if `temperature` is not among them.
  void require_temperature(double temperature) const;
  /// All records of a window: `ids` and `log_p` get [context * k]. Checks a shard's hash when it is
  /// first read; throws Error(kBadInput) if it differs. Safe to call from several threads.
  void read(int64_t window, double temperature, int32_t* ids, float* log_p) const;
  /// What a block of the teacher gave: [context, hidden_width]. The same otherwise.
  void read_states(int64_t window, int64_t block, float* states) const;
  /// The teacher's layers and width, which is what losses over hidden states ask of it.
  Architecture teacher_shape() const;

 private:
  /// The records of a window, of a shard that has been checked.
  const std::byte* records(int64_t window) const;
  struct Shard {
    std::shared_ptr<const MappedFile> file;
    std::string hash;
    mutable std::once_flag checked;
  };
  std::string path_;
  TeacherCacheHeader header_;
  std::shared_ptr<const MappedFile> tokens_;
  std::vector<std::unique_ptr<Shard>> shards_;
};

/// Writes a cache shard by shard; a killed run's whole shards are kept.
class TeacherCacheWriter {
 public:
  /// With `resume`: goes on with the partial folder of a run with the same header. Throws as
  /// AtomicFolder does.
  TeacherCacheWriter(std::string path, TeacherCacheHeader header, const PackedData& data,
                     bool force, bool resume);
  /// Shards before this one are on the disk.
  int64_t next_shard() const { return static_cast<int64_t>(hashes_.size()); }
  /// `records`: [windows_in(next_shard()) * context * record_bytes].
  void write_shard(const std::vector<std::byte>& records);
  /// Keeps what there is for a later run.
  void keep() { folder_.keep(); }
  /// A file of the tokenizer; empty texts are left out.
  void write_tokenizer_file(const std::string& name, const std::string& text);
  /// All shards must have been written.
  void finish();

 private:
  std::string shard_path(int64_t shard) const;
  TeacherCacheHeader header_;
  AtomicFolder folder_;
  std::vector<std::string> hashes_;
};

/// Encodes one record but for its hidden states. `logits` [header.vocab]. `scratch` is reused
/// between calls. Throws Error(kBadInput) at a logit that is not finite.
void encode_teacher_record(const TeacherCacheHeader& header, const float* logits, std::byte* out,
                           std::vector<int32_t>& scratch);

}  // namespace slmc
