#include "formats/model_writer.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

#include "compress/core/error.h"
#include "formats/block_codec.h"
#include "formats/gguf.h"
#include "tests/support/tiny_model.h"

namespace slmc {
namespace {

namespace fs = std::filesystem;
using test::error_of;
using test::slurp;
using test::TemporaryFolder;
using test::TinyModel;

OutputSpec spec_of(const Model& model, const std::string& path) {
  OutputSpec spec;
  spec.path = path;
  spec.arch = model.arch();
  spec.config = model.config();
  spec.assets = model.assets();
  for (const TensorInfo& info : model.tensors())
    spec.tensors.push_back({info.name, info.dtype, info.shape});
  return spec;
}

void copy_model(const std::string& from, const std::string& to) {
  const auto model = Model::open(from);
  const auto writer = ModelWriter::create(spec_of(*model, to));
  for (const TensorInfo& info : model->tensors()) writer->write(info.name, model->view(info.name));
  writer->finish();
}

const TinyModel kLlama = {.layers = 2,
                          .heads = 4,
                          .kv_heads = 2,
                          .head_dim = 8,
                          .tied = false,
                          .attention_bias = true,
                          .mlp_bias = true,
                          .rope_type = "llama3"};
const TinyModel kQwen = {.family = "qwen2", .tied = true, .newer_rope_spelling = true, .shards = 2};

class RoundTrip : public testing::TestWithParam<TinyModel> {};

TEST_P(RoundTrip, ThroughGgufGivesTheSameBytesAndConfig) {
  TemporaryFolder folder;
  test::write_tiny_model(folder.file("a"), GetParam());
  copy_model(folder.file("a"), folder.file("b.gguf"));
  copy_model(folder.file("b.gguf"), folder.file("c"));
  const auto a = Model::open(folder.file("a"));
  const auto b = Model::open(folder.file("b.gguf"));
  const auto c = Model::open(folder.file("c"));
  EXPECT_EQ(architecture_difference(a->arch(), b->arch()), "");
  EXPECT_EQ(architecture_difference(a->arch(), c->arch()), "");
  EXPECT_EQ(rope_inverse_frequencies(a->arch().rope), rope_inverse_frequencies(b->arch().rope));
  EXPECT_EQ(a->config(), c->config());
  ASSERT_EQ(a->tensors().size(), c->tensors().size());
  for (const TensorInfo& info : a->tensors()) {
    const TensorView before = a->view(info.name), between = b->view(info.name),
                     after = c->view(info.name);
    EXPECT_EQ(std::memcmp(before.data, between.data, info.bytes), 0) << info.name;
    EXPECT_EQ(std::memcmp(before.data, after.data, info.bytes), 0) << info.name;
    std::vector<float> direct(static_cast<size_t>(before.elements())), read(direct.size());
    decode_rows(before, 0, before.rows(), direct.data());
    b->read_rows(info.name, 0, before.rows(), read.data());
    EXPECT_EQ(direct, read) << info.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Families, RoundTrip, testing::Values(kLlama, kQwen));

TEST(ModelWriter, PutsLlamaQueryRowsInInterleavedOrder) {
  TemporaryFolder folder;
  test::write_tiny_model(folder.file("a"), kLlama);
  copy_model(folder.file("a"), folder.file("b.gguf"));
  const auto model = Model::open(folder.file("a"));
  const GgufFile gguf = GgufFile::open(folder.file("b.gguf"));
  // Of each head of 8 rows, llama.cpp's order takes row 0, 4, 1, 5, 2, 6, 3, 7.
  const int order[] = {0, 4, 1, 5, 2, 6, 3, 7};
  for (const char* name : {"blk.1.attn_q.weight", "blk.1.attn_k.weight", "blk.1.attn_k.bias"}) {
    const TensorView view = model->view(name);
    const GgufTensor& tensor = *gguf.find(name);
    const int64_t rows = view.shape[0];
    const uint64_t bytes = tensor.bytes / static_cast<uint64_t>(rows);
    for (int64_t row = 0; row < rows; ++row) {
      const auto source = static_cast<uint64_t>(row / 8 * 8 + order[row % 8]);
      EXPECT_EQ(std::memcmp(gguf.file->data() + tensor.offset + static_cast<uint64_t>(row) * bytes,
                            view.data + source * bytes, bytes),
                0)
          << name << " row " << row;
    }
  }
  EXPECT_EQ(gguf.find("rope_freqs.weight")->shape, (std::vector<int64_t>{4}));
}

/// Writes tensors up to `stop_after` and dies by SIGKILL in the middle of the next; returns when
/// the child is gone.
void write_and_die(const std::string& from, const std::string& to, size_t stop_after) {
  const pid_t child = fork();
  if (child == 0) {
    const auto model = Model::open(from);
    OutputSpec spec = spec_of(*model, to);
    const auto writer = ModelWriter::create(spec);
    for (size_t i = 0; i < stop_after; ++i)
      writer->write(model->tensors()[i].name, model->view(model->tensors()[i].name));
    const TensorView next = model->view(model->tensors()[stop_after].name);
    writer->write_rows(model->tensors()[stop_after].name, 0, next.rows() / 2, next.data);
    kill(getpid(), SIGKILL);
  }
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status));
}

TEST(ModelWriter, ResumedAfterAKillWritesTheSameBytes) {
  TemporaryFolder folder;
  test::write_tiny_model(folder.file("a"), kLlama);
  const auto model = Model::open(folder.file("a"));
  for (const std::string out : {"out.gguf", "out"}) {
    const std::string data = out == "out" ? "/model.safetensors" : "";
    copy_model(folder.file("a"), folder.file("whole" + out));
    write_and_die(folder.file("a"), folder.file(out), 5);
    EXPECT_FALSE(fs::exists(folder.file(out)));
    OutputSpec spec = spec_of(*model, folder.file(out));
    spec.name = "wholeout";  // general.name follows from the output's name otherwise.
    spec.resume = true;
    if (out == "out") {
      spec.name = "";
      const auto writer = ModelWriter::create(spec);
      for (size_t i = 0; i < model->tensors().size(); ++i) {
        const std::string& name = model->tensors()[i].name;
        EXPECT_EQ(writer->done(name), i < 5) << name;
        if (!writer->done(name)) writer->write(name, model->view(name));
      }
      writer->finish();
    } else {
      // Another header: the partial file is not taken over.
      const auto writer = ModelWriter::create(spec);
      for (const TensorInfo& info : model->tensors()) {
        EXPECT_FALSE(writer->done(info.name));
        writer->write(info.name, model->view(info.name));
      }
      writer->finish();
    }
    EXPECT_EQ(slurp(folder.file(out) + data), slurp(folder.file("whole" + out) + data));
    EXPECT_FALSE(fs::exists(folder.file(out) + ".partial"));
    EXPECT_FALSE(fs::exists(folder.file(out) + ".partial.journal"));
  }
}

TEST(ModelWriter, ResumesAGguf) {
  TemporaryFolder folder;
  test::write_tiny_model(folder.file("a"), kQwen);
  copy_model(folder.file("a"), folder.file("out.gguf"));
  const std::string whole = slurp(folder.file("out.gguf"));
  fs::remove(folder.file("out.gguf"));
  const auto model = Model::open(folder.file("a"));
  write_and_die(folder.file("a"), folder.file("out.gguf"), 7);
  OutputSpec spec = spec_of(*model, folder.file("out.gguf"));
  spec.resume = true;
  const auto writer = ModelWriter::create(spec);
  EXPECT_TRUE(writer->done(model->tensors()[6].name));
  for (const TensorInfo& info : model->tensors()) {
    if (!writer->done(info.name)) writer->write(info.name, model->view(info.name));
  }
  writer->finish();
  EXPECT_EQ(slurp(folder.file("out.gguf")), whole);
}

TEST(ModelWriter, LeavesNothingWhenItIsAbandoned) {
  TemporaryFolder folder;
  test::write_tiny_model(folder.file("a"));
  const auto model = Model::open(folder.file("a"));
  for (const char* out : {"b.gguf", "b"}) {
    { const auto writer = ModelWriter::create(spec_of(*model, folder.file(out))); }
    EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()), 1)
        << out;
  }
}

TEST(ModelWriter, FindsThatTheDiskHoldsSomethingElse) {
  TemporaryFolder folder;
  test::write_tiny_model(folder.file("a"));
  const auto model = Model::open(folder.file("a"));
  const auto writer = ModelWriter::create(spec_of(*model, folder.file("b.gguf")));
  for (const TensorInfo& info : model->tensors()) writer->write(info.name, model->view(info.name));
  std::string bytes = slurp(folder.file("b.gguf.partial"));
  bytes[bytes.size() - 40] ^= 1;
  test::spit(folder.file("b.gguf.partial"), bytes);
  EXPECT_NE(error_of([&] { writer->finish(); }).find("reads back different"), std::string::npos);
  EXPECT_FALSE(fs::exists(folder.file("b.gguf")));
}

TEST(ModelWriter, RefusesTypesThatTheContainerCannotHold) {
  TemporaryFolder folder;
  test::write_tiny_model(folder.file("a"));
  const auto model = Model::open(folder.file("a"));
  OutputSpec spec = spec_of(*model, folder.file("b"));
  for (OutputTensor& tensor : spec.tensors) {
    if (tensor.shape.size() == 2) tensor.dtype = DType::kQ8_0;
  }
  EXPECT_NE(error_of([&] { ModelWriter::create(spec); }).find("not q8_0"), std::string::npos);
  spec.path = folder.file("b.gguf");
  EXPECT_EQ(error_of([&] { ModelWriter::create(spec); }), "");
  spec.tensors[1].dtype = DType::kF16;
  EXPECT_NE(error_of([&] { ModelWriter::create(spec); }).find("this tensor in f32"),
            std::string::npos);
}

TEST(ModelWriter, PredictsItsBytesAndStoresHashes) {
  TemporaryFolder folder;
  test::write_tiny_model(folder.file("a"), kLlama);
  const auto model = Model::open(folder.file("a"));
  const uint64_t predicted = predicted_output_bytes(spec_of(*model, folder.file("b.gguf")));
  copy_model(folder.file("a"), folder.file("b.gguf"));
  EXPECT_EQ(fs::file_size(folder.file("b.gguf")), predicted);
  const auto written = Model::open(folder.file("b.gguf"));
  ASSERT_EQ(written->stored_hashes().size(), written->tensors().size());
  for (const auto& [name, hash] : written->stored_hashes())
    EXPECT_EQ(hash, model->tensor_hash(name)) << name;
}

}  // namespace
}  // namespace slmc
