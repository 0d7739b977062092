#include "distill/vocabulary.h"

#include <algorithm>
#include <filesystem>

#include "compress/core/error.h"
#include "compress/core/mapped_file.h"
#include "compress/core/text.h"

namespace slmc {
namespace {

namespace fs = std::filesystem;

/// Files beside a tokenizer.json, in a folder that need not hold a model.
Assets assets_of(const std::string& path) {
  if (!fs::exists(path + "/config.json") && fs::is_directory(path)) return read_folder_assets(path);
  return Model::open(path)->assets();
}

void require_equal(const Tokenizer& a, const std::string& where_a, const Tokenizer& b,
                   const std::string& where_b) {
  if (a.hash() == b.hash()) return;
  const int32_t count = std::min(a.vocab_size(), b.vocab_size());
  int32_t id = 0;
  while (id < count && a.token_text(id) == b.token_text(id)) ++id;
  // Ids beyond the smaller vocabulary are extra tokens of the other, which it alone can emit.
  if (id == count && a.vocab_size() == b.vocab_size()) return;
  throw_unsupported(cat("vocabularies differ at id ", id, ": '",
                        id < a.vocab_size() ? a.token_text(id) : std::string("none"), "' in ",
                        where_a, ", '",
                        id < b.vocab_size() ? b.token_text(id) : std::string("none"), "' in ",
                        where_b, "; a teacher and its student must share one tokenizer"));
}

}  // namespace

int64_t tokens_with_rows(const Tokenizer& tokenizer, int64_t rows, const std::string& where) {
  for (int64_t id = rows; id < tokenizer.vocab_size(); ++id)
    if (!tokenizer.is_special(static_cast<int32_t>(id)))
      throw_bad_input(cat(where, ": its embedding has ", rows, " rows, the tokenizer ",
                          tokenizer.vocab_size(), " tokens"));
  return std::min<int64_t>(tokenizer.vocab_size(), rows);
}

Vocabulary shared_vocabulary(const std::string& path, const Model* teacher,
                             const Student& student) {
  const Model* checkpoint = student.model.get();
  Vocabulary vocabulary;
  std::string where;
  const auto consider = [&](std::shared_ptr<const Tokenizer> tokenizer, const std::string& place,
                            const auto& assets) {
    if (vocabulary.tokenizer == nullptr) {
      vocabulary.tokenizer = std::move(tokenizer);
      vocabulary.assets = assets();
      where = place;
    } else {
      require_equal(*vocabulary.tokenizer, where, *tokenizer, place);
    }
  };
  // Models keep their tokenizer alive themselves.
  const auto borrowed = [](const Model& model) {
    return std::shared_ptr<const Tokenizer>(std::shared_ptr<const void>(), &model.tokenizer());
  };
  if (!path.empty())
    consider(Tokenizer::from_assets(tokenizer_assets(path), path, &student.arch), path,
             [&] { return assets_of(path); });
  if (checkpoint != nullptr)
    consider(borrowed(*checkpoint), checkpoint->path(), [&] { return checkpoint->assets(); });
  if (teacher != nullptr)
    consider(borrowed(*teacher), teacher->path(), [&] { return teacher->assets(); });
  if (student.new_head) {  // Heads that travel along, and how pooling made an embedding.
    vocabulary.assets.carried.clear();
    vocabulary.assets.files.clear();
  }
  if (vocabulary.tokenizer == nullptr)
    throw_usage("tokenizer: the student has none; give --tokenizer FOLDER");
  vocabulary.size = tokens_with_rows(*vocabulary.tokenizer, student.arch.vocab, student.origin);
  if (teacher != nullptr)
    if (const int64_t theirs =
            tokens_with_rows(*vocabulary.tokenizer, teacher->arch().vocab, teacher->path());
        theirs != vocabulary.size)
      throw_bad_input(cat(teacher->path(), ": its embedding has rows for ", theirs,
                          " tokens of the tokenizer, and that of ", student.origin, " for ",
                          vocabulary.size, "; they must have the same ones"));
  return vocabulary;
}

void check_ids(const PackedData& data, int64_t size) {
  for (const int32_t id : data.ids)
    if (id < 0 || id >= size)
      throw_bad_input(cat("training data: token id ", id, ": expected 0 to ", size - 1));
}

}  // namespace slmc
