// What the runtime writes to and reads from files beside models: logits, energy counters, and its
// own object code.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstring>
#include <filesystem>

#include "compress/runtime/energy.h"
#include "compress/runtime/npy.h"
#include "tests/support/tiny_model.h"

namespace slmc {
namespace {

TEST(Npy, IsNumpysFormat) {
  const test::TemporaryFolder folder;
  const float data[6] = {1.5f, -2, 3, 4, 5, 6};
  write_npy(folder.file("a.npy"), {2, 3}, data);
  const std::string bytes = test::slurp(folder.file("a.npy"));
  // numpy/lib/format.py: magic, version, header length, a dict padded so that the data begin at a
  // multiple of 64.
  EXPECT_EQ(bytes.substr(0, 8), std::string("\x93NUMPY\x01\x00", 8));
  const size_t length =
      static_cast<unsigned char>(bytes[8]) + 256u * static_cast<unsigned char>(bytes[9]);
  EXPECT_EQ((10 + length) % 64, 0u);
  EXPECT_EQ(bytes.substr(10, 61), "{'descr': '<f4', 'fortran_order': False, 'shape': (2,3,), }  ");
  EXPECT_EQ(bytes[10 + length - 1], '\n');
  EXPECT_EQ(bytes.size(), 10 + length + sizeof(data));
  EXPECT_EQ(std::memcmp(bytes.data() + 10 + length, data, sizeof(data)), 0);
}

TEST(Energy, SumsPackagesAndUndoesAWrap) {
  const test::TemporaryFolder folder;
  for (const std::string name : {"intel-rapl:0", "intel-rapl:0:0", "intel-rapl:1"}) {
    std::filesystem::create_directory(folder.file(name));
    test::spit(folder.file(name) + "/energy_uj", "900000\n");
    test::spit(folder.file(name) + "/max_energy_range_uj", "1000000\n");
  }
  EnergyMeter meter(folder.path());
  ASSERT_TRUE(meter.available());
  test::spit(folder.file("intel-rapl:0") + "/energy_uj", "950000\n");
  test::spit(folder.file("intel-rapl:0:0") + "/energy_uj",
             "940000\n");  // A part of package 0: not counted twice.
  test::spit(folder.file("intel-rapl:1") + "/energy_uj",
             "100000\n");  // Wrapped: 0.1 J to the end, 0.1 J after it.
  EXPECT_NEAR(meter.take(), 0.05 + 0.2, 1e-9);
  EXPECT_NEAR(meter.take(), 0.0, 1e-9);
  EXPECT_FALSE(EnergyMeter(folder.file("nothing")).available());
}

// A weak symbol in a kernel's object could be given to every other file by the linker, with
// instructions that the processor lacks.
TEST(KernelObjects, DefineNothingButTheirSet) {
#if !defined(__x86_64__)
  GTEST_SKIP() << "cross-compiled objects need another nm";
#elif defined(SLMC_SANITIZED)
  GTEST_SKIP() << "the sanitizers add symbols of their own";
#endif
  int objects = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(SLMC_KERNEL_OBJECTS)) {
    const std::string path = entry.path().string();
    if (path.find("/kernels/") == std::string::npos || entry.path().extension() != ".o") continue;
    if (path.ends_with("scalar.cc.o")) continue;  // Built for any processor.
    ++objects;
    FILE* pipe = popen(("nm -C '" + path + "'").c_str(), "r");
    ASSERT_NE(pipe, nullptr);
    char line[4096];
    int sets = 0;
    while (std::fgets(line, sizeof(line), pipe)) {
      const char kind = std::strlen(line) > 17 ? line[17] : ' ';
      if (kind == ' ' || std::islower(static_cast<unsigned char>(kind)) != 0) {
        EXPECT_NE(kind, 'w') << path << ": " << line;
        EXPECT_NE(kind, 'v') << path << ": " << line;
        continue;
      }
      if (kind == 'U') {  // Needed from elsewhere: functions of C only.
        EXPECT_EQ(std::strstr(line, "std::"), nullptr) << path << ": " << line;
        continue;
      }
      EXPECT_EQ(kind, 'T') << path << ": " << line;
      EXPECT_NE(std::strstr(line, "_set()"), nullptr) << path << ": " << line;
      ++sets;
    }
    pclose(pipe);
    EXPECT_EQ(sets, 1) << path << " (is nm installed?)";
  }
  EXPECT_GE(objects, 1);
}

}  // namespace
}  // namespace slmc
