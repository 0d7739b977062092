#include "distill/checkpoint.h"

#include <cstring>
#include <filesystem>

#include "compress/core/atomic_file.h"
#include "compress/core/error.h"
#include "compress/core/mapped_file.h"
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

void save_checkpoint(const std::string& folder, const ParameterLayout& layout,
                     const TrainingState& state, const Json& conditions) {
  std::error_code failed;
  fs::create_directories(folder, failed);
  if (failed)
    throw_resources(cat(folder, ": cannot create the checkpoint's folder: ", failed.message()));
  Json header = Json::object();
  header["__metadata__"] = {{"slmc.training", conditions.dump()},
                            {"slmc.step", std::to_string(state.step)},
                            {"slmc.measured", state.measured.dump()}};
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
  AtomicFile file(file_of(folder));
  file.reserve(8 + length + offset);
  uint64_t at = 0;
  const auto write = [&](const void* bytes, uint64_t size) {
    file.write_at(at, bytes, size);
    at += size;
  };
  write(&length, 8);
  write(text.data(), text.size());
  for (const float* buffer : {state.weights, state.first, state.second})
    write(buffer, static_cast<uint64_t>(layout.total) * 4);
  file.commit();
}

bool has_checkpoint(const std::string& folder) { return fs::exists(file_of(folder)); }

Json checkpoint_conditions(const std::string& folder) {
  const auto file = MappedFile::open(file_of(folder));
  uint64_t data = 0;
  return parse_json(read_header(*file, data)["__metadata__"]["slmc.training"].get<std::string>(),
                    file->path());
}

void load_checkpoint(const std::string& folder, const ParameterLayout& layout,
                     TrainingState& state) {
  const auto file = MappedFile::open(file_of(folder));
  uint64_t data = 0;
  const Json header = read_header(*file, data);
  float* const buffers[] = {state.weights, state.first, state.second};
  for (size_t group = 0; group < 3; ++group)
    for (const ParameterSlot& slot : layout.slots) {
      const std::string name = kGroups[group] + slot.name;
      const uint64_t bytes = static_cast<uint64_t>(slot.size) * 4;
      if (!header.contains(name) ||
          header[name].value("shape", std::vector<int64_t>{}) != slot.shape)
        throw_bad_input(cat(file->path(), ": tensor ", name, ": expected shape ",
                            shape_text(slot.shape), ", found ",
                            header.contains(name) ? header[name].dump() : "none",
                            "; start again without --resume"));
      const uint64_t begin = header[name]["data_offsets"][0].get<uint64_t>();
      if (begin > file->size() - data || bytes > file->size() - data - begin)
        throw_bad_input(cat(file->path(), ": tensor ", name, ", offset ", data + begin, ": ", bytes,
                            " bytes reach beyond the file's ", file->size(),
                            "; start again without --resume"));
      std::memcpy(buffers[group] + slot.offset, file->data() + data + begin, bytes);
    }
  state.step = std::stoll(header["__metadata__"].value("slmc.step", "0"));
  state.measured = parse_json(header["__metadata__"].value("slmc.measured", "[]"), file->path());
}

void remove_checkpoint(const std::string& folder) {
  std::error_code ignored;
  fs::remove_all(folder, ignored);
}

std::string conditions_difference(const Json& then, const Json& now) {
  for (const auto& [key, value] : now.items()) {
    if (then.contains(key) && then[key] == value) continue;
    if (then.contains(key) && then[key].is_object() && value.is_object())
      return conditions_difference(then[key], value);
    return cat(key, " was ", then.contains(key) ? then[key].dump() : "absent", " and is ",
               value.dump());
  }
  return "";
}

}  // namespace slmc
