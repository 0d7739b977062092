// Outputs appear whole or not at all; mapped files and their hashes.
#include <gtest/gtest.h>

#include <filesystem>

#include "compress/core/atomic_file.h"
#include "compress/core/error.h"
#include "compress/core/hash.h"
#include "compress/core/mapped_file.h"
#include "tests/support/run_program.h"

namespace slmc {
namespace {

using test::read_file;
using test::ScratchFolder;
using Names = std::vector<std::string>;

TEST(AtomicFile, AppearsOnlyAtCommit) {
  const ScratchFolder folder;
  {
    AtomicFile file(folder.file("x"));
    file.append("hello", 5);
    EXPECT_EQ(folder.names(), Names{"x.partial"});
    file.commit();
  }
  EXPECT_EQ(folder.names(), Names{"x"});
  EXPECT_EQ(read_file(folder.file("x")), "hello");
}

TEST(AtomicFile, LeavesNothingWhenAbandonedUnlessKept) {
  const ScratchFolder folder;
  { AtomicFile(folder.file("x")).append("a", 1); }
  EXPECT_EQ(folder.names(), Names{});
  {
    AtomicFile file(folder.file("x"));
    file.append("half", 4);
    file.keep();
  }
  EXPECT_EQ(folder.names(), Names{"x.partial"});
  AtomicFile again(folder.file("x"), true);
  EXPECT_EQ(again.size(), 4u);
  again.append(" done", 5);
  again.commit();
  EXPECT_EQ(read_file(folder.file("x")), "half done");
}

TEST(AtomicFile, ReplacesTheOldContentInOneStep) {
  const ScratchFolder folder;
  folder.write("x", "old");
  AtomicFile file(folder.file("x"));
  file.write_at(2, "c", 1);
  file.write_at(0, "ab", 2);
  EXPECT_EQ(read_file(folder.file("x")), "old");
  file.commit();
  EXPECT_EQ(read_file(folder.file("x")), "abc");
}

TEST(AtomicFile, ReservesSpaceAndRefusesWhatNoDiskHas) {
  const ScratchFolder folder;
  AtomicFile file(folder.file("x"));
  file.reserve(1000);
  EXPECT_EQ(std::filesystem::file_size(file.partial_path()), 1000u);
  try {
    file.reserve(uint64_t{1} << 60);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kResources);
  }
}

TEST(AtomicFile, FailsWhereNothingCanBeWritten) {
  try {
    AtomicFile file("/proc/nothing/x");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kResources);
  }
}

TEST(AtomicFolder, AppearsOnlyAtCommit) {
  const ScratchFolder folder;
  { AtomicFolder abandoned(folder.file("m"), false); }
  EXPECT_EQ(folder.names(), Names{});
  AtomicFolder target(folder.file("m/"), false);
  write_text(target.partial_path() + "/a", "1");
  EXPECT_EQ(folder.names(), Names{"m.partial"});
  target.commit();
  EXPECT_EQ(folder.names(), Names{"m"});
  EXPECT_EQ(read_file(folder.file("m/a")), "1");
}

TEST(AtomicFolder, ReplacesOnlyWithForce) {
  const ScratchFolder folder;
  folder.write("m/old", "1");
  EXPECT_THROW(AtomicFolder(folder.file("m"), false), Error);
  AtomicFolder target(folder.file("m"), true);
  write_text(target.partial_path() + "/new", "2");
  EXPECT_EQ(read_file(folder.file("m/old")), "1");
  target.commit();
  EXPECT_EQ(folder.names(), Names{"m"});
  EXPECT_FALSE(std::filesystem::exists(folder.file("m/old")));
  EXPECT_EQ(read_file(folder.file("m/new")), "2");
}

TEST(AtomicFolder, GoesOnWithAKilledRunWhenAsked) {
  const ScratchFolder folder;
  folder.write("m.partial/done", "1");
  {
    AtomicFolder resumed(folder.file("m"), false, true);
    EXPECT_EQ(read_file(resumed.partial_path() + "/done"), "1");
    resumed.keep();
  }
  EXPECT_EQ(folder.names(), Names{"m.partial"});
  AtomicFolder fresh(folder.file("m"), false);
  EXPECT_FALSE(std::filesystem::exists(fresh.partial_path() + "/done"));
}

TEST(CheckOutput, RefusesWhatExistsAndMissingParents) {
  const ScratchFolder folder;
  folder.write("x", "1");
  EXPECT_THROW(check_output(folder.file("x"), false), Error);
  EXPECT_NO_THROW(check_output(folder.file("x"), true));
  EXPECT_NO_THROW(check_output(folder.file("y"), false));
  EXPECT_THROW(check_output(folder.file("none/y"), true), Error);
  EXPECT_NO_THROW(check_output("only-a-name-that-is-not-there", false));
}

TEST(MappedFile, ShowsTheBytesAndSurvivesDrops) {
  const ScratchFolder folder;
  const std::string text(300000, 'x');
  const auto file = MappedFile::open(folder.write("x", text));
  for (uint64_t at : {uint64_t{0}, uint64_t{1}, uint64_t{4095}, uint64_t{250000}, uint64_t{300000},
                      uint64_t{400000}})
    file->drop(at, 100000);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(file->data()), file->size()), text);
  EXPECT_EQ(MappedFile::open(folder.write("empty", ""))->size(), 0u);
  EXPECT_EQ(read_text(folder.file("empty")), "");
}

TEST(MappedFile, RefusesWhatIsNotAFile) {
  const ScratchFolder folder;
  for (const std::string& path :
       {folder.path(), folder.file("absent"), std::string("/dev/zero"), std::string("")}) {
    try {
      MappedFile::open(path);
      ADD_FAILURE() << path;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kBadInput) << path;
    }
  }
}

TEST(Hash, EqualsThePublishedValueAndItsPieces) {
  // XXH128 of nothing, from the xxHash specification's test vectors.
  EXPECT_EQ(hash_bytes("", 0), "99aa06d3014798d86001c324468d497f");
  std::string text;
  for (int i = 0; i < 100000; ++i) text += static_cast<char>(i * 31);
  Hasher hasher;
  for (size_t at = 0; at < text.size(); at += 777)
    hasher.add(text.data() + at, std::min<size_t>(777, text.size() - at));
  EXPECT_EQ(hasher.digest(), hash_bytes(text.data(), text.size()));
  const ScratchFolder folder;
  EXPECT_EQ(hash_file(folder.write("x", text)), hasher.digest());
  EXPECT_EQ(hash_file(folder.write("empty", "")), hash_bytes("", 0));
}

}  // namespace
}  // namespace slmc
