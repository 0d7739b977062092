// Files of torch.save (fixtures/pytorch/generate.py): every tensor's bytes, and what is refused.
#include "formats/pytorch.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "compress/core/error.h"
#include "compress/core/json.h"
#include "compress/core/mapped_file.h"
#include "formats/pickle.h"
#include "formats/zip.h"

namespace slmc {
namespace {

std::string fixture(const std::string& name) {
  return std::string(SLMC_FIXTURES "/pytorch/") + name;
}

DType dtype_of(const std::string& name) {
  const std::vector<std::pair<std::string, DType>> all = {
      {"float32", DType::kF32}, {"float16", DType::kF16}, {"bfloat16", DType::kBF16},
      {"float64", DType::kF64}, {"int64", DType::kI64},   {"uint8", DType::kU8},
      {"bool", DType::kBool}};
  for (const auto& [known, dtype] : all)
    if (known == name) return dtype;
  ADD_FAILURE() << name;
  return DType::kF32;
}

std::string hex(const std::byte* data, uint64_t bytes) {
  std::string out;
  for (uint64_t i = 0; i < bytes; ++i) {
    const auto byte = static_cast<unsigned>(data[i]);
    out += "0123456789abcdef"[byte >> 4];
    out += "0123456789abcdef"[byte & 15];
  }
  return out;
}

void expect_values(const std::vector<SafetensorsFile>& files) {
  const Json values = read_json(fixture("values.json"));
  size_t found = 0;
  for (const SafetensorsFile& file : files) {
    for (const SafetensorsEntry& entry : file.tensors) {
      const Json& value = values.at(entry.name);
      EXPECT_EQ(entry.shape, value["shape"].get<std::vector<int64_t>>()) << entry.name;
      EXPECT_EQ(entry.dtype, dtype_of(value["dtype"])) << entry.name;
      EXPECT_EQ(hex(file.file->data() + entry.offset, entry.bytes),
                value["bytes"].get<std::string>())
          << entry.name;
      ++found;
    }
  }
  EXPECT_EQ(found, values.size());
}

TEST(Pytorch, TensorsAreViewsOfTheirBytes) {
  expect_values({open_pytorch_file(fixture("model.bin"))});
}

TEST(Pytorch, SharedStoragesStayShared) {
  const SafetensorsFile file = open_pytorch_file(fixture("model.bin"));
  uint64_t matrix = 0, tied = 1, rows = 0;
  for (const SafetensorsEntry& entry : file.tensors) {
    if (entry.name == "matrix") matrix = entry.offset;
    if (entry.name == "tied") tied = entry.offset;
    if (entry.name == "rows") rows = entry.offset;
  }
  EXPECT_EQ(matrix, tied);
  EXPECT_EQ(rows, matrix + 2 * 4 * 4);
}

TEST(Pytorch, FoldersOfShardsAndOfOneFile) {
  expect_values(open_safetensors_folder(fixture("sharded")));
  const std::string folder = testing::TempDir() + "slmc_pytorch_folder";
  std::filesystem::create_directory(folder);
  std::filesystem::copy_file(fixture("model.bin"), folder + "/pytorch_model.bin",
                             std::filesystem::copy_options::overwrite_existing);
  expect_values(open_safetensors_folder(folder));
  std::filesystem::remove_all(folder);
}

std::string error_of(const std::string& path, ExitCode expected) {
  try {
    open_pytorch_file(path);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), expected) << error.what();
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    return error.what();
  }
  ADD_FAILURE() << path << ": no error";
  return "";
}

TEST(Pytorch, WhatIsNoTensorIsRefusedByName) {
  EXPECT_NE(error_of(fixture("call.bin"), ExitCode::kUnsupported).find("posix.getcwd"),
            std::string::npos);
  EXPECT_NE(error_of(fixture("nested.bin"), ExitCode::kUnsupported).find("'model' is not a tensor"),
            std::string::npos);
  EXPECT_NE(error_of(fixture("transposed.bin"), ExitCode::kUnsupported).find("contiguous"),
            std::string::npos);
  EXPECT_NE(error_of(fixture("legacy.bin"), ExitCode::kUnsupported).find("before 1.6"),
            std::string::npos);
  EXPECT_NE(error_of(fixture("values.json"), ExitCode::kBadInput).find("torch.save"),
            std::string::npos);
}

TEST(Pytorch, EveryTruncationIsAnError) {
  const std::string whole = read_text(fixture("nested.bin")),
                    path = testing::TempDir() + "slmc_cut.bin";
  for (size_t size = 0; size < whole.size(); size += 7) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << whole.substr(0, size);
    EXPECT_THROW(open_pytorch_file(path), Error) << size;
  }
  std::filesystem::remove(path);
}

TEST(Pickle, DepthAndCyclesCostNoRecursion) {
  std::string deep = "\x80\x02)";
  deep.append(300'000, '\x85');  // A tuple in a tuple in a tuple...
  EXPECT_THROW(read_pickled_tensors(deep + ".", "deep"), Error);
  EXPECT_THROW(
      read_pickled_tensors("\x80\x02]q" + std::string(1, '\0') + "h" + std::string(1, '\0') + "a.",
                           "cycle"),
      Error);
  EXPECT_THROW(read_pickled_tensors("\x80\x02" + std::string(2'000'000, 'N') + ".", "many"), Error);
  EXPECT_TRUE(read_pickled_tensors("\x80\x02}.", "empty").empty());
}

TEST(Pickle, SizesThatOverflowAreErrors) {
  // torch._utils._rebuild_tensor_v2 with a storage of 4 floats and a shape of 2^62 by 8.
  const auto text = [](const std::string& s) {
    return "X" + std::string(1, static_cast<char>(s.size())) + std::string(3, '\0') + s;
  };
  const std::string large("\x8a\x08\0\0\0\0\0\0\0\x40", 10);
  const std::string pickle = "\x80\x02}" + text("w") + "ctorch._utils\n_rebuild_tensor_v2\n((" +
                             text("storage") + "ctorch\nFloatStorage\n" + text("0") + text("cpu") +
                             "K\x04tQK" + std::string(1, '\0') + large +
                             "K\x08\x86K\x08K\x01\x86\x89}tRs.";
  const auto tensors = read_pickled_tensors(pickle, "large");
  ASSERT_EQ(tensors.size(), 1u);
  EXPECT_EQ(tensors[0].shape, (std::vector<int64_t>{int64_t{1} << 62, 8}));
}

}  // namespace
}  // namespace slmc
