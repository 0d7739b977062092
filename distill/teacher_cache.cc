#include "distill/teacher_cache.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>

#include "compress/core/conditions.h"
#include "compress/core/error.h"
#include "compress/core/half.h"
#include "compress/core/hash.h"
#include "compress/core/text.h"
#include "distill/vector_math.h"

namespace slmc {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFormat = "slmc teacher cache";
constexpr int kVersion = 1, kVersionWithStates = 2;

std::string shard_name(int64_t shard) {
  std::string digits = std::to_string(shard);
  return cat("shard-", std::string(digits.size() < 5 ? 5 - digits.size() : 0, '0'), digits, ".bin");
}

std::shared_ptr<const MappedFile> open_sized(const std::string& path, uint64_t size) {
  auto file = MappedFile::open(path);
  if (file->size() != size)
    throw_bad_input(cat(path, ": expected ", size, " bytes, found ", file->size()));
  return file;
}

uint64_t token_bytes(const TeacherCacheHeader& header) {
  return (static_cast<uint64_t>(header.windows) * static_cast<uint64_t>(header.context) + 1) * 5;
}

/// Reads `count` fields of `bits` bits.
void unpack_ids(const std::byte* in, int64_t count, int64_t bits, int32_t* out) {
  uint64_t window = 0;
  int64_t have = 0;
  for (int64_t i = 0; i < count; ++i) {
    for (; have < bits; have += 8) window |= static_cast<uint64_t>(*in++) << have;
    out[i] = static_cast<int32_t>(window & ((uint64_t{1} << bits) - 1));
    window >>= bits;
    have -= bits;
  }
}

void pack_ids(const int32_t* ids, int64_t count, int64_t bits, std::byte* out) {
  uint64_t window = 0;
  int64_t have = 0;
  for (int64_t i = 0; i < count; ++i) {
    window |= static_cast<uint64_t>(ids[i]) << have;
    for (have += bits; have >= 8; have -= 8, window >>= 8)
      *out++ = static_cast<std::byte>(window & 255);
  }
  if (have > 0) *out = static_cast<std::byte>(window & 255);
}

SLMC_CLONES float sum_of_exp(const float* z, int64_t n, float top, float inverse_t) {
  float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += fast_exp((z[i] - top) * inverse_t);
  return sum;
}

/// How many of 16 values are above `bound`; what most of a vocabulary answers with 0.
SLMC_CLONES int above(const float* z, float bound) {
  int count = 0;
#pragma omp simd reduction(+ : count)
  for (int64_t i = 0; i < 16; ++i) count += z[i] > bound ? 1 : 0;
  return count;
}

/// The k best ids, best first, lower ids first among equals.
void best_ids(const float* z, int64_t n, int64_t k, std::vector<int32_t>& ids) {
  const auto better = [z](int32_t a, int32_t b) { return z[a] != z[b] ? z[a] > z[b] : a < b; };
  ids.clear();
  int64_t i = 0;
  for (; i < k; ++i) ids.push_back(static_cast<int32_t>(i));
  std::make_heap(ids.begin(), ids.end(), better);  // The worst of them in front.
  while (i < n) {
    if (i + 16 <= n && above(z + i, z[ids.front()]) == 0) {
      i += 16;
      continue;
    }
    for (const int64_t end = std::min(n, i + 16); i < end; ++i) {
      if (!(z[i] > z[ids.front()])) continue;
      std::pop_heap(ids.begin(), ids.end(), better);
      ids.back() = static_cast<int32_t>(i);
      std::push_heap(ids.begin(), ids.end(), better);
    }
  }
  std::sort(ids.begin(), ids.end(), better);
}

}  // namespace

int64_t TeacherCacheHeader::id_bits() const {
  return std::bit_width(static_cast<uint64_t>(std::max<int64_t>(1, vocab - 1)));
}

int64_t TeacherCacheHeader::record_bytes() const {
  return static_cast<int64_t>(temperatures.size()) * 4 + (k * id_bits() + 7) / 8 +
         k * (float32 ? 4 : 2) + hidden_bytes();
}

bool TeacherCacheHeader::has_block(int64_t block) const {
  return std::find(hidden_blocks.begin(), hidden_blocks.end(), block) != hidden_blocks.end();
}

int64_t TeacherCacheHeader::windows_in(int64_t shard) const {
  return std::min(shard_windows, windows - shard * shard_windows);
}

Json TeacherCacheHeader::to_json() const {
  Json json = {{"format", kFormat},
               {"version", hidden_blocks.empty() ? kVersion : kVersionWithStates},
               {"teacher", teacher},
               {"teacher_hash", teacher_hash},
               {"tokenizer_hash", tokenizer_hash},
               {"data_hash", data_hash},
               {"vocab", vocab},
               {"k", k},
               {"values", float32 ? "f32" : "f16"},
               {"temperatures", temperatures},
               {"context", context},
               {"windows", windows},
               {"documents", documents},
               {"tokens", tokens},
               {"isolate_documents", isolate_documents},
               {"eos", eos},
               {"seed", seed},
               {"shard_windows", shard_windows}};
  if (!hidden_blocks.empty())
    json["hidden"] = {{"blocks", hidden_blocks}, {"width", hidden_width}, {"layers", layers}};
  return json;
}

TeacherCacheHeader TeacherCacheHeader::from_json(const Json& json, const std::string& where) {
  TeacherCacheHeader header;
  try {
    if (json.at("format") != kFormat ||
        (json.at("version") != kVersion && json.at("version") != kVersionWithStates))
      throw_bad_input(cat(where, ": expected '", kFormat, "' of version ", kVersion, " or ",
                          kVersionWithStates));
    header.teacher = json.at("teacher");
    header.teacher_hash = json.at("teacher_hash");
    header.tokenizer_hash = json.at("tokenizer_hash");
    header.data_hash = json.at("data_hash");
    header.vocab = json.at("vocab");
    header.k = json.at("k");
    header.float32 = json.at("values") == "f32";
    header.temperatures = json.at("temperatures").get<std::vector<double>>();
    header.context = json.at("context");
    header.windows = json.at("windows");
    header.documents = json.at("documents");
    header.tokens = json.at("tokens");
    header.isolate_documents = json.at("isolate_documents");
    header.eos = json.at("eos");
    header.seed = json.at("seed");
    header.shard_windows = json.at("shard_windows");
    if (json.at("version") == kVersionWithStates) {
      header.hidden_blocks = json.at("hidden").at("blocks").get<std::vector<int64_t>>();
      header.hidden_width = json.at("hidden").at("width");
      header.layers = json.at("hidden").at("layers");
    }
  } catch (const Json::exception& error) {
    throw_bad_input(cat(where, ": not a whole description of a teacher cache: ", error.what()));
  }
  // Bounds keep sizes computed from a damaged header inside 64 bits.
  constexpr int64_t kMany = int64_t{1} << 31;
  if (header.vocab < 1 || header.vocab > kMany || header.k < 1 || header.k > header.vocab ||
      header.context < 1 || header.context > (1 << 20) || header.windows < 1 ||
      header.windows > kMany || header.shard_windows < 1 || header.temperatures.size() > 64 ||
      header.hidden_width < 0 || header.hidden_width > (1 << 20) ||
      header.hidden_blocks.size() > 1024 ||
      header.windows + header.shard_windows >
          std::numeric_limits<int64_t>::max() / header.context / header.record_bytes())
    throw_bad_input(cat(where, ": sizes out of range"));
  return header;
}

bool TeacherCache::is_one(const std::string& path) {
  return fs::is_regular_file(path + "/cache.json");
}

std::shared_ptr<const TeacherCache> TeacherCache::open(const std::string& path) {
  auto cache = std::make_shared<TeacherCache>();
  const std::string where = path + "/cache.json";
  const Json json = parse_json(read_text(where), where);
  cache->path_ = path;
  cache->header_ = TeacherCacheHeader::from_json(json, where);
  const TeacherCacheHeader& header = cache->header_;
  cache->tokens_ = open_sized(path + "/tokens.bin", token_bytes(header));
  const Json hashes = json.value("shards", Json::array());
  if (static_cast<int64_t>(hashes.size()) != header.shards())
    throw_bad_input(cat(where, ": expected ", header.shards(), " shards, found ", hashes.size()));
  for (int64_t s = 0; s < header.shards(); ++s) {
    auto shard = std::make_unique<Shard>();
    shard->file = open_sized(cat(path, "/", shard_name(s)),
                             static_cast<uint64_t>(header.windows_in(s)) *
                                 static_cast<uint64_t>(header.context * header.record_bytes()));
    shard->hash = hashes[static_cast<size_t>(s)].get<std::string>();
    cache->shards_.push_back(std::move(shard));
  }
  if (const std::string found = hash_bytes(cache->tokens_->data(), cache->tokens_->size());
      found != json.value("tokens_hash", ""))
    throw_bad_input(cat(path, "/tokens.bin: the hash is ", found, ", not the one in cache.json"));
  return cache;
}

PackedData TeacherCache::data() const {
  PackedData data;
  data.context = header_.context;
  data.windows = header_.windows;
  data.documents = header_.documents;
  data.tokens = header_.tokens;
  data.hash = header_.data_hash;
  const auto count = static_cast<size_t>(header_.windows * header_.context + 1);
  data.ids.resize(count);
  std::memcpy(data.ids.data(), tokens_->data(), count * 4);
  const std::byte* const flags = tokens_->data() + count * 4;
  int32_t document = -1;
  for (size_t i = 0; i < count; ++i) {
    const auto flag = static_cast<uint8_t>(flags[i]);
    data.learned.push_back(flag & 1);
    document += flag >> 1;
    if (header_.isolate_documents) data.document.push_back(document);
    if (data.ids[i] < 0 || data.ids[i] >= header_.vocab)
      throw_bad_input(cat(path_, "/tokens.bin: id ", data.ids[i], " at position ", i,
                          ": expected 0 to ", header_.vocab - 1));
  }
  return data;
}

void TeacherCache::require_temperature(double temperature) const {
  std::string known = "1";
  bool found = temperature == 1.0;
  for (const double t : header_.temperatures) {
    known += cat(", ", t);
    found = found || t == temperature;
  }
  if (!found)
    throw_usage(cat("temperature: ", path_, " holds the teacher at ", known, "; found ",
                    temperature, "; capture again with --temperatures"));
}

const std::byte* TeacherCache::records(int64_t window) const {
  const Shard& shard = *shards_[static_cast<size_t>(window / header_.shard_windows)];
  std::call_once(shard.checked, [&] {
    if (hash_bytes(shard.file->data(), shard.file->size()) != shard.hash)
      throw_bad_input(cat(shard.file->path(), ": damaged: the content's hash is not ", shard.hash));
  });
  return shard.file->data() +
         (window % header_.shard_windows) * header_.context * header_.record_bytes();
}

void TeacherCache::read_states(int64_t window, int64_t block, float* states) const {
  const auto found = std::find(header_.hidden_blocks.begin(), header_.hidden_blocks.end(), block);
  SLMC_CHECK(found != header_.hidden_blocks.end(), "a block that the cache lacks");
  const int64_t bytes = header_.hidden_width * 4;
  const std::byte* in = records(window) + header_.record_bytes() - header_.hidden_bytes() +
                        (found - header_.hidden_blocks.begin()) * bytes;
  for (int64_t row = 0; row < header_.context; ++row, in += header_.record_bytes())
    std::memcpy(states + row * header_.hidden_width, in, static_cast<size_t>(bytes));
}

Architecture TeacherCache::teacher_shape() const {
  Architecture shape;
  shape.layers = header_.layers;
  shape.hidden = header_.hidden_width;
  return shape;
}

void TeacherCache::read(int64_t window, double temperature, int32_t* ids, float* log_p) const {
  const Shard& shard = *shards_[static_cast<size_t>(window / header_.shard_windows)];
  const auto count = static_cast<int64_t>(header_.temperatures.size());
  int64_t which = -1;
  for (int64_t i = 0; i < count; ++i)
    if (header_.temperatures[static_cast<size_t>(i)] == temperature) which = i;
  SLMC_CHECK(which >= 0 || temperature == 1.0, "a temperature that the cache lacks");
  const int64_t k = header_.k;
  const int64_t id_bytes = (k * header_.id_bits() + 7) / 8;
  const std::byte* in = records(window);
  for (int64_t row = 0; row < header_.context;
       ++row, in += header_.record_bytes(), ids += k, log_p += k) {
    float correction = 0.0f;
    if (which >= 0) std::memcpy(&correction, in + which * 4, 4);
    unpack_ids(in + count * 4, k, header_.id_bits(), ids);
    const std::byte* const values = in + count * 4 + id_bytes;
    for (int64_t i = 0; i < k; ++i) {
      float value = 0.0f;
      if (header_.float32) {
        std::memcpy(&value, values + i * 4, 4);
      } else {
        uint16_t half = 0;
        std::memcpy(&half, values + i * 2, 2);
        value = f16_to_float(half);
      }
      log_p[i] = value / static_cast<float>(temperature) - correction;
      if (ids[i] >= header_.vocab)
        throw_bad_input(
            cat(shard.file->path(), ": token id ", ids[i], ": expected less than ", header_.vocab));
    }
  }
}

TeacherCacheWriter::TeacherCacheWriter(std::string path, TeacherCacheHeader header,
                                       const PackedData& data, bool force, bool resume)
    : header_(std::move(header)), folder_(std::move(path), force, resume) {
  const std::string partial = folder_.partial_path();
  const std::string plan = partial + "/capture.json";
  if (resume && fs::is_regular_file(plan)) {
    Json then = parse_json(read_text(plan), plan), now = header_.to_json();
    for (Json* each : {&then, &now}) each->erase("teacher");  // Where it was; its hash is there.
    if (const std::string difference = conditions_difference(then, now); !difference.empty()) {
      folder_.keep();
      throw_usage(cat(partial, ": the capture cannot be continued: ", difference,
                      "; give the same options, or start again without --resume"));
    }
    for (int64_t s = 0; s < header_.shards() && fs::is_regular_file(shard_path(s)); ++s)
      hashes_.push_back(hash_file(shard_path(s)));
    return;
  }
  for (const auto& entry : fs::directory_iterator(partial)) fs::remove_all(entry.path());
  std::string tokens(token_bytes(header_), '\0');
  std::memcpy(tokens.data(), data.ids.data(), data.ids.size() * 4);
  for (size_t i = 0; i < data.ids.size(); ++i) {
    const bool first =
        !data.document.empty() && (i == 0 || data.document[i] != data.document[i - 1]);
    tokens[data.ids.size() * 4 + i] = static_cast<char>((data.learned[i] & 1) | (first ? 2 : 0));
  }
  write_text(partial + "/tokens.bin", tokens);
  write_text(plan, header_.to_json().dump(2) + "\n");
}

std::string TeacherCacheWriter::shard_path(int64_t shard) const {
  return cat(folder_.partial_path(), "/", shard_name(shard));
}

void TeacherCacheWriter::write_shard(const std::vector<std::byte>& records) {
  SLMC_CHECK(static_cast<int64_t>(records.size()) ==
                 header_.windows_in(next_shard()) * header_.context * header_.record_bytes(),
             "a shard of another size");
  write_text(shard_path(next_shard()),
             {reinterpret_cast<const char*>(records.data()), records.size()});
  hashes_.push_back(hash_bytes(records.data(), records.size()));
}

void TeacherCacheWriter::write_tokenizer_file(const std::string& name, const std::string& text) {
  if (text.empty()) return;
  fs::create_directories(folder_.partial_path() + "/tokenizer");
  write_text(cat(folder_.partial_path(), "/tokenizer/", name), text);
}

void TeacherCacheWriter::finish() {
  SLMC_CHECK(next_shard() == header_.shards(), "shards are missing");
  const std::string partial = folder_.partial_path();
  Json json = header_.to_json();
  json["tokens_hash"] = hash_file(partial + "/tokens.bin");
  json["shards"] = hashes_;
  write_text(partial + "/cache.json", json.dump(2) + "\n");
  fs::remove(partial + "/capture.json");
  folder_.commit();
}

void encode_teacher_record(const TeacherCacheHeader& header, const float* logits, std::byte* out,
                           std::vector<int32_t>& scratch) {
  const float top = row_max(logits, header.vocab);
  const auto log_sum = [&](double t) {  // log sum exp((z - top) / t)
    return std::log(
        static_cast<double>(sum_of_exp(logits, header.vocab, top, static_cast<float>(1.0 / t))));
  };
  const double lse = log_sum(1.0);
  if (!std::isfinite(lse)) throw_bad_input("the teacher's logits are not finite");
  best_ids(logits, header.vocab, header.k, scratch);
  for (const double t : header.temperatures) {
    const auto correction = static_cast<float>(log_sum(t) - lse / t);
    std::memcpy(out, &correction, 4);
    out += 4;
  }
  pack_ids(scratch.data(), header.k, header.id_bits(), out);
  out += (header.k * header.id_bits() + 7) / 8;
  for (const int32_t id : scratch) {
    const auto value = static_cast<float>(static_cast<double>(logits[id] - top) - lse);
    if (header.float32) {
      std::memcpy(out, &value, 4);
      out += 4;
    } else {
      const uint16_t half = float_to_f16(std::max(value, -65504.0f));
      std::memcpy(out, &half, 2);
      out += 2;
    }
  }
}

}  // namespace slmc
