// The one writer behind both containers: the layout says where bytes go, this puts them there,
// journals and verifies.
#include "formats/model_writer.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>

#include "compress/core/atomic_file.h"
#include "compress/core/error.h"
#include "compress/core/hash.h"
#include "compress/core/parallel.h"
#include "compress/core/text.h"
#include "formats/model_places.h"
#include "formats/output_layout.h"
#include "formats/write_journal.h"

namespace slmc {
namespace fs = std::filesystem;
namespace {

constexpr uint64_t kCarriedPiece = 16 << 20;

/// Of everything that decides where bytes lie and what the small files say.
std::string layout_hash(const OutputLayout& layout) {
  Hasher hasher;
  const auto add = [&hasher](const std::string& text) {
    const std::string sized = cat(text.size(), " ");
    hasher.add(sized.data(), sized.size());
    hasher.add(text.data(), text.size());
  };
  for (const OutputFile& file : layout.files) {
    add(file.name);
    add(file.header);
    add(cat(file.size));
  }
  for (const auto& [name, text] : layout.texts) add(name), add(text);
  return hasher.digest();
}

class LayoutWriter : public ModelWriter {
 public:
  using ModelWriter::finish;
  explicit LayoutWriter(OutputSpec spec)
      : spec_(std::move(spec)), layout_(output_layout(spec_)), state_(layout_.slots.size()) {
    check_output(spec_.path, spec_.force);
    spec_.path = without_trailing_slash(spec_.path);
    std::error_code error;
    if (!layout_.folder && fs::is_directory(spec_.path, error))
      throw_usage(cat(spec_.path, ": is a folder; name a file"));
    for (size_t i = 0; i < layout_.slots.size(); ++i) index_[layout_.slots[i].tensor.name] = i;
    const std::string binding = layout_hash(layout_) + spec_.binding;
    const std::string partial = spec_.path + ".partial";
    const std::string journal = layout_.folder ? partial + "/slmc-journal" : partial + ".journal";
    std::map<std::string, std::string> done;
    if (spec_.resume) done = WriteJournal::read(journal, binding);
    open_files(!done.empty());
    journal_.emplace(journal, binding, done);
    for (const auto& [name, hash] : done) {
      if (index_.count(name) > 0) state_[index_.at(name)].hash = hash;
    }
    if (done.empty()) write_headers();
  }

  ~LayoutWriter() override {
    if (!finished_ && !spec_.resume && journal_) journal_->remove();
  }

  uint64_t total_bytes() const override { return layout_.total(); }
  bool done(const std::string& name) const override {
    return !state_[slot_index(name)].hash.empty();
  }

  void write_rows(const std::string& name, int64_t row, int64_t count, const void* data) override {
    const size_t index = slot_index(name);
    const OutputSlot& slot = layout_.slots[index];
    State& state = state_[index];
    const int64_t rows = element_count(slot.tensor.shape) / slot.tensor.shape.back();
    SLMC_CHECK(state.hash.empty(), cat("tensor ", name, " is complete already"));
    SLMC_CHECK(row == state.rows && count >= 0 && row + count <= rows,
               cat("tensor ", name, ": rows ", row, " to ", row + count, " after row ", state.rows,
                   " of ", rows));
    const uint64_t row_bytes = slot.bytes / static_cast<uint64_t>(rows);
    if (!state.hasher) state.hasher.emplace();
    if (slot.group) {
      put_group(slot, state, rows, row, count, static_cast<const std::byte*>(data));
      state.hasher->add(data, row_bytes * static_cast<uint64_t>(count));
    } else if (slot.layout.shift != 0) {
      put_shifted(slot, static_cast<const float*>(data), *state.hasher);
    } else {
      put_rows(slot, state, row, count, row_bytes, static_cast<const std::byte*>(data));
      state.hasher->add(data, row_bytes * static_cast<uint64_t>(count));
    }
    state.rows += count;
    if (state.rows < rows) return;
    if (slot.layout.transposed) put_transposed(slot, state.whole);
    state.whole = {};
    state.hash = state.hasher->digest();
    state.hasher.reset();
    journal_->add(name, state.hash);
  }

  void read_back(const std::string& name, int64_t row, int64_t count, void* out) const override {
    const OutputSlot& slot = layout_.slots[slot_index(name)];
    SLMC_CHECK(done(name), cat("tensor ", name, " is not complete yet"));
    const int64_t rows = element_count(slot.tensor.shape) / slot.tensor.shape.back();
    SLMC_CHECK(row >= 0 && count >= 0 && row + count <= rows,
               cat("tensor ", name, ": no such rows"));
    if (slot.group) return read_group(slot, row, count, static_cast<std::byte*>(out));
    const std::string path = files_[layout_.stored[slot.stored].file]->partial_path();
    std::ifstream file(path, std::ios::binary);
    auto* bytes = static_cast<std::byte*>(out);
    const auto read = [&](uint64_t at, std::byte* to, uint64_t size) {
      file.seekg(static_cast<std::streamoff>(layout_.offset(slot) + at));
      file.read(reinterpret_cast<char*>(to), static_cast<std::streamsize>(size));
    };
    const bool vector = slot.tensor.shape.size() == 1;
    const bool ordered = slot.layout.order != GgufRows::kSame;
    const int64_t items = vector && ordered ? slot.tensor.shape[0] : rows;
    const uint64_t size = slot.bytes / static_cast<uint64_t>(items);
    if (slot.layout.transposed) {
      read_transposed(slot, row, count, read, bytes);
    } else if (!ordered) {
      read(static_cast<uint64_t>(row) * size, bytes, static_cast<uint64_t>(count) * size);
    } else {
      const int64_t first = vector ? 0 : row, last = vector ? items : row + count;
      for (int64_t i = first; i < last; ++i) {
        read(static_cast<uint64_t>(gguf_row(i, items, slot.layout.heads)) * size,
             bytes + static_cast<uint64_t>(i - first) * size, size);
      }
    }
    if (slot.layout.shift != 0) {
      auto* values = static_cast<float*>(out);
      for (int64_t i = 0; i < slot.tensor.shape[0]; ++i)
        values[i] = static_cast<float>(static_cast<double>(values[i]) -
                                       static_cast<double>(slot.layout.shift));
    }
    if (!file)
      throw_resources(
          cat(path, ": tensor ", name, " cannot be read back; start anew without --resume"));
  }

  std::vector<std::pair<std::string, std::string>> hashes() const override {
    std::vector<std::pair<std::string, std::string>> all;
    for (size_t i = 0; i < state_.size(); ++i)
      all.emplace_back(layout_.slots[i].tensor.name, state_[i].hash);
    return all;
  }

  void finish(const std::function<void(const Model&)>& check) override {
    std::vector<std::string> hashes;
    for (size_t i = 0; i < state_.size(); ++i) {
      SLMC_CHECK(!state_[i].hash.empty(),
                 cat("tensor ", layout_.slots[i].tensor.name, " was not written"));
      hashes.push_back(state_[i].hash);
    }
    const OutputLayout final = output_layout(spec_, hashes);
    put_carried();
    for (size_t i = 0; i < final.files.size(); ++i) {
      SLMC_CHECK(final.files[i].header.size() == layout_.files[i].header.size(),
                 "the header's size changed with the hashes");
      files_[i]->write_at(0, final.files[i].header.data(), final.files[i].header.size());
    }
    if (layout_.folder) {
      for (auto& file : files_) file->commit();
      for (const auto& [name, text] : layout_.texts) write_small(name, text);
      verify(folder_->partial_path(), check);
      journal_->remove();
      folder_->commit();
    } else {
      files_[0]->sync();
      verify(files_[0]->partial_path(), check);
      files_[0]->commit();
      journal_->remove();
    }
    finished_ = true;
  }

 private:
  struct State {
    int64_t rows = 0;
    std::optional<Hasher> hasher;
    std::vector<uint8_t> zeros;    // Zero points so far; they are packed across rows.
    std::string hash;              // Once complete.
    std::vector<std::byte> whole;  // Of a transposed tensor, until it is complete.
  };

  size_t slot_index(const std::string& name) const {
    const auto found = index_.find(name);
    SLMC_CHECK(found != index_.end(), cat("tensor ", name, " is not among those to be written"));
    return found->second;
  }

  void open_files(bool reopen) {
    if (!layout_.folder) {
      files_.push_back(std::make_unique<AtomicFile>(spec_.path, reopen));
    } else {
      folder_ = std::make_unique<AtomicFolder>(spec_.path, spec_.force, reopen);
      for (const OutputFile& file : layout_.files) {
        const std::string path = folder_->partial_path() + "/" + file.name;
        // A run killed while it finished had given the shards their names already.
        if (reopen && fs::exists(path)) fs::rename(path, path + ".partial");
        files_.push_back(std::make_unique<AtomicFile>(path, reopen));
      }
    }
    if (spec_.resume) {  // What is done is worth keeping, whatever happens from here on.
      for (auto& file : files_) file->keep();
      if (folder_) folder_->keep();
    }
    for (size_t i = 0; i < files_.size(); ++i) files_[i]->reserve(layout_.files[i].size);
  }

  void write_headers() {
    for (size_t i = 0; i < files_.size(); ++i) {
      files_[i]->write_at(0, layout_.files[i].header.data(), layout_.files[i].header.size());
      // The last byte gives the file its size where the disk could not reserve it.
      if (layout_.files[i].size > layout_.files[i].header.size())
        files_[i]->write_at(layout_.files[i].size - 1, "\0", 1);
    }
    for (const auto& [file, bytes] : layout_.extra)
      files_[file]->write_at(layout_.files[file].header.size(), bytes.data(), bytes.size());
  }

  void write_small(const std::string& name, const std::string& text) const {
    const fs::path path = fs::path(folder_->partial_path()) / name;
    fs::create_directories(path.parent_path());
    write_text(path.string(), text);
  }

  void put(const OutputSlot& slot, uint64_t at, const void* data, uint64_t bytes) {
    files_[layout_.stored[slot.stored].file]->write_at(layout_.offset(slot) + at, data, bytes);
  }

  void put_rows(const OutputSlot& slot, State& state, int64_t row, int64_t count,
                uint64_t row_bytes, const std::byte* data) {
    const uint64_t bytes = row_bytes * static_cast<uint64_t>(count);
    if (slot.layout.transposed) {
      state.whole.insert(state.whole.end(), data, data + bytes);
      return;
    }
    if (slot.layout.order == GgufRows::kSame) {
      put(slot, static_cast<uint64_t>(row) * row_bytes, data, bytes);
      return;
    }
    const int64_t heads = slot.layout.heads;
    if (slot.tensor.shape.size() == 1) {  // A bias: its elements are the rows.
      const int64_t elements = slot.tensor.shape[0];
      const uint64_t size = row_bytes / static_cast<uint64_t>(elements);
      std::vector<std::byte> ordered(row_bytes);
      for (int64_t i = 0; i < elements && count > 0; ++i) {
        std::copy_n(data + static_cast<uint64_t>(i) * size, size,
                    ordered.data() + static_cast<uint64_t>(gguf_row(i, elements, heads)) * size);
      }
      if (count > 0) put(slot, 0, ordered.data(), ordered.size());
      return;
    }
    for (int64_t i = 0; i < count; ++i) {
      const auto to = static_cast<uint64_t>(gguf_row(row + i, slot.tensor.shape[0], heads));
      put(slot, to * row_bytes, data + static_cast<uint64_t>(i) * row_bytes, row_bytes);
    }
  }

  /// Rows of a weight that lies in the files as several tensors.
  void put_group(const OutputSlot& slot, State& state, int64_t rows, int64_t row, int64_t count,
                 const std::byte* blocks) {
    if (count == 0) return;
    write_group_rows(*slot.group, rows, row, count, blocks, state.zeros,
                     [&](size_t part, uint64_t at, const std::byte* data, uint64_t bytes) {
                       const StoredTensor& stored = layout_.stored[slot.stored + part];
                       files_[stored.file]->write_at(stored.offset + at, data, bytes);
                     });
  }

  void read_group(const OutputSlot& slot, int64_t row, int64_t count, std::byte* out) const {
    std::vector<std::vector<std::byte>> held;
    const auto get = [&](size_t part, uint64_t at, uint64_t bytes) -> const std::byte* {
      const StoredTensor& stored = layout_.stored[slot.stored + part];
      const std::string path = files_[stored.file]->partial_path();
      std::ifstream file(path, std::ios::binary);
      held.emplace_back(bytes);
      file.seekg(static_cast<std::streamoff>(stored.offset + at));
      file.read(reinterpret_cast<char*>(held.back().data()), static_cast<std::streamsize>(bytes));
      if (!file) {
        throw_resources(cat(path, ": tensor ", stored.name,
                            " cannot be read back; start anew without --resume"));
      }
      return held.back().data();
    };
    read_group_rows(*slot.group, row, count, get, out);
  }

  /// A vector of f32 that the file holds shifted; the hash is of what can be read back.
  void put_shifted(const OutputSlot& slot, const float* data, Hasher& hasher) {
    const auto count = static_cast<size_t>(slot.tensor.shape[0]);
    const auto shift = static_cast<double>(slot.layout.shift);
    std::vector<float> stored(count), back(count);
    for (size_t i = 0; i < count; ++i) {
      stored[i] = static_cast<float>(static_cast<double>(data[i]) + shift);
      back[i] = static_cast<float>(static_cast<double>(stored[i]) - shift);
    }
    put(slot, 0, stored.data(), count * sizeof(float));
    hasher.add(back.data(), count * sizeof(float));
  }

  template <typename Read>
  static void read_transposed(const OutputSlot& slot, int64_t row, int64_t count, const Read& read,
                              std::byte* out) {
    const int64_t rows = slot.tensor.shape[0], columns = slot.tensor.shape[1];
    const int64_t stride = slot.layout.rows > 0 ? slot.layout.rows : rows;
    const auto size = static_cast<size_t>(dtype_block_bytes(slot.tensor.dtype));
    std::vector<std::byte> piece(static_cast<size_t>(count) * size);
    for (int64_t c = 0; c < columns; ++c) {
      read(static_cast<uint64_t>(c * stride + slot.layout.first_row + row) * size, piece.data(),
           piece.size());
      for (int64_t r = 0; r < count; ++r)
        std::copy_n(piece.data() + static_cast<size_t>(r) * size, size,
                    out + static_cast<size_t>(r * columns + c) * size);
    }
  }

  /// Row c of the file is column c of the tensor, among those of the tensors fused with it.
  void put_transposed(const OutputSlot& slot, const std::vector<std::byte>& whole) {
    const int64_t rows = slot.tensor.shape[0], columns = slot.tensor.shape[1];
    const int64_t stride = slot.layout.rows > 0 ? slot.layout.rows : rows;
    const auto size = static_cast<size_t>(dtype_block_bytes(slot.tensor.dtype));
    std::vector<std::byte> column(static_cast<size_t>(rows) * size);
    for (int64_t c = 0; c < columns; ++c) {
      for (int64_t r = 0; r < rows; ++r) {
        std::copy_n(whole.data() + static_cast<size_t>(r * columns + c) * size, size,
                    column.data() + static_cast<size_t>(r) * size);
      }
      put(slot, static_cast<uint64_t>(c * stride + slot.layout.first_row) * size, column.data(),
          column.size());
    }
  }

  /// Copies what travels along, a piece at a time.
  void put_carried() {
    for (const StoredTensor& tensor : layout_.stored) {
      if (tensor.carried == nullptr) continue;
      for (uint64_t at = 0; at < tensor.bytes; at += kCarriedPiece) {
        const uint64_t size = std::min(kCarriedPiece, tensor.bytes - at);
        files_[tensor.file]->write_at(tensor.offset + at, tensor.carried->view.data + at, size);
      }
    }
  }

  /// Written = meant: the ordinary reader must find every tensor as it was given.
  void verify(const std::string& path, const std::function<void(const Model&)>& check) const {
    const auto model = Model::open(path);
    Architecture meant = spec_.arch;
    if (layout_.made.empty()) meant.kv_scales.clear();  // Of rounded weights; this has none.
    const std::string difference = architecture_difference(model->arch(), meant);
    SLMC_CHECK(difference.empty(), cat(path, ": reads back as another architecture: ", difference));
    parallel_for(static_cast<int64_t>(state_.size()), [&](int64_t slot) {
      const auto i = static_cast<size_t>(slot);
      const OutputTensor& tensor = layout_.slots[i].tensor;
      SLMC_CHECK(model->info(tensor.name).dtype == tensor.dtype,
                 cat(path, ": tensor ", tensor.name, " reads back as another type"));
      if (model->tensor_hash(tensor.name) != state_[i].hash) {
        throw_resources(
            cat(path, ": tensor ", tensor.name,
                " reads back different from what was written; the disk may be failing"));
      }
    });
    if (check) check(*model);
  }

  OutputSpec spec_;
  OutputLayout layout_;
  std::vector<State> state_;  // Parallel to layout_.slots.
  std::map<std::string, size_t> index_;
  std::unique_ptr<AtomicFolder> folder_;
  std::vector<std::unique_ptr<AtomicFile>> files_;
  std::optional<WriteJournal> journal_;
  bool finished_ = false;
};

}  // namespace

std::unique_ptr<ModelWriter> ModelWriter::create(OutputSpec spec) {
  return std::make_unique<LayoutWriter>(std::move(spec));
}

void ModelWriter::write(const std::string& name, const TensorView& view) {
  constexpr uint64_t kPiece = 16 << 20;
  const int64_t rows = view.rows();
  const int64_t step =
      std::max<int64_t>(1, static_cast<int64_t>(kPiece / std::max<uint64_t>(1, view.row_bytes())));
  for (int64_t row = 0; row < rows; row += step)
    write_rows(name, row, std::min(step, rows - row), view.row(row));
}

}  // namespace slmc
