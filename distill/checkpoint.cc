#include "distill/checkpoint.h"

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "compress/core/error.h"
#include "compress/core/text.h"

namespace slmc {
namespace {

namespace fs = std::filesystem;

constexpr const char* kGroups[] = {"weight.", "adam.first.", "adam.second."};

std::string file_of(const std::string& folder) { return folder + "/state.safetensors"; }

/// The header's JSON, checked to lie inside the file; `data` is where tensors begin.
Json read_header(const MappedFile& file, uint64_t& data) {
  uint64_t length = 0;
  if (file.size() >= 8) std::memcpy(&length, file.data(), 8);
  if (file.size() < 8 || length > file.size() - 8)
    throw_bad_input(cat(file.path(), ": damaged checkpoint, offset 0: expected a header inside ",
                        file.size(), " bytes, found length ", length,
                        "; start again without --resume"));
  data = 8 + length;
  Json header = parse_json({reinterpret_cast<const char*>(file.data()) + 8, length}, file.path());
  if (!header.is_object() || !header.contains("__metadata__") ||
      !header["__metadata__"].contains("slmc.training"))
    throw_bad_input(cat(file.path(), ": not a checkpoint of slmc distill"));
  return header;
}

}  // namespace

CheckpointWriter::CheckpointWriter(const std::string& folder, const ParameterLayout& layout,
                                   const TrainingState& state, const Json& conditions)
    : total_(layout.total) {
  std::error_code failed;
  fs::create_directories(folder, failed);
  if (failed)
    throw_resources(cat(folder, ": cannot create the checkpoint's folder: ", failed.message()));
  Json header = Json::object();
  header["__metadata__"] = {{"slmc.training", conditions.dump()},
                            {"slmc.step", std::to_string(state.step)},
                            {"slmc.measured", state.measured.dump()},
                            {"slmc.samples", state.samples.dump()},
                            {"slmc.last", state.last.dump()}};
  uint64_t offset = 0;
  for (const char* group : kGroups)
    for (const ParameterSlot& slot : layout.slots) {
      const uint64_t bytes = static_cast<uint64_t>(slot.size) * 4;
      header[group + slot.name] = {
          {"dtype", "F32"}, {"shape", slot.shape}, {"data_offsets", {offset, offset + bytes}}};
      offset += bytes;
    }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  const uint64_t length = text.size();
  data_ = 8 + length;
  file_ = std::make_unique<AtomicFile>(file_of(folder));
  file_->reserve(data_ + offset);
  file_->write_at(0, &length, 8);
  file_->write_at(8, text.data(), text.size());
}

void CheckpointWriter::write(StateBuffer buffer, int64_t begin, std::span<const float> values) {
  const auto first = static_cast<uint64_t>(static_cast<int64_t>(buffer) * total_ + begin);
  file_->write_at(data_ + first * 4, values.data(), values.size_bytes());
}

void CheckpointWriter::commit() { file_->commit(); }

bool has_checkpoint(const std::string& folder) { return fs::exists(file_of(folder)); }

Json checkpoint_conditions(const std::string& folder) {
  const auto file = MappedFile::open(file_of(folder));
  uint64_t data = 0;
  return parse_json(read_header(*file, data)["__metadata__"]["slmc.training"].get<std::string>(),
                    file->path());
}

CheckpointReader::CheckpointReader(const std::string& folder, const ParameterLayout& layout)
    : layout_(layout), file_(MappedFile::open(file_of(folder))) {
  uint64_t data = 0;
  const Json header = read_header(*file_, data);
  for (const char* group : kGroups) {
    offsets_.emplace_back();
    for (const ParameterSlot& slot : layout.slots) {
      const std::string name = group + slot.name;
      const uint64_t bytes = static_cast<uint64_t>(slot.size) * 4;
      if (!header.contains(name) ||
          header[name].value("shape", std::vector<int64_t>{}) != slot.shape)
        throw_bad_input(cat(file_->path(), ": tensor ", name, ": expected shape ",
                            shape_text(slot.shape), ", found ",
                            header.contains(name) ? header[name].dump() : "none",
                            "; start again without --resume"));
      const uint64_t begin = header[name]["data_offsets"][0].get<uint64_t>();
      if (begin > file_->size() - data || bytes > file_->size() - data - begin)
        throw_bad_input(cat(file_->path(), ": tensor ", name, ", offset ", data + begin, ": ",
                            bytes, " bytes reach beyond the file's ", file_->size(),
                            "; start again without --resume"));
      offsets_.back().push_back(data + begin);
    }
  }
  state_.step = std::stoll(header["__metadata__"].value("slmc.step", "0"));
  state_.measured = parse_json(header["__metadata__"].value("slmc.measured", "[]"), file_->path());
  state_.samples = parse_json(header["__metadata__"].value("slmc.samples", "null"), file_->path());
  state_.last = parse_json(header["__metadata__"].value("slmc.last", "{}"), file_->path());
}

void CheckpointReader::read(StateBuffer buffer, int64_t begin, std::span<float> values) const {
  const int64_t end = begin + std::ssize(values);
  for (size_t i = 0; i < layout_.slots.size(); ++i) {
    const ParameterSlot& slot = layout_.slots[i];
    const int64_t from = std::max(begin, slot.offset), to = std::min(end, slot.offset + slot.size);
    if (from >= to) continue;
    const uint64_t offset = offsets_[static_cast<size_t>(buffer)][i];
    std::memcpy(values.data() + (from - begin),
                file_->data() + offset + static_cast<uint64_t>(from - slot.offset) * 4,
                static_cast<size_t>(to - from) * 4);
  }
}

void remove_checkpoint(const std::string& folder) {
  std::error_code ignored;
  fs::remove_all(folder, ignored);
}

}  // namespace slmc
