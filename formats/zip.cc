#include "formats/zip.h"

#include <cstring>

#include "compress/core/error.h"
#include "compress/core/text.h"

namespace slmc {
namespace {

constexpr uint64_t kEndBytes = 22, kEntryBytes = 46, kLocalBytes = 30;

class Directory {
 public:
  explicit Directory(const MappedFile& file) : file_(file) {}

  std::vector<ZipEntry> read() {
    find_end();
    std::vector<ZipEntry> entries;
    uint64_t at = start_;
    for (uint64_t i = 0; i < count_; ++i) {
      need(at, kEntryBytes, "an entry of the directory");
      if (number<uint32_t>(at) != 0x02014b50) fail(at, "expected an entry of the directory");
      const uint64_t name = number<uint16_t>(at + 28), extra = number<uint16_t>(at + 30),
                     comment = number<uint16_t>(at + 32);
      need(at + kEntryBytes, name + extra + comment, "an entry of the directory");
      entries.push_back(entry(at, name, extra));
      at += kEntryBytes + name + extra + comment;
    }
    return entries;
  }

 private:
  [[noreturn]] void fail(uint64_t at, const std::string& what) const {
    throw_bad_input(cat(file_.path(), ": byte ", at, ": not a whole zip archive: ", what));
  }
  void need(uint64_t at, uint64_t bytes, const char* what) const {
    if (at > file_.size() || bytes > file_.size() - at)
      fail(at, cat(what, " does not lie in the file"));
  }
  template <typename T>
  T number(uint64_t at) const {
    T value;
    std::memcpy(&value, file_.data() + at, sizeof value);
    return value;
  }

  /// The record at the archive's end, or its 64-bit form.
  void find_end() {
    if (file_.size() < kEndBytes) fail(0, "the file is too short");
    const uint64_t last = file_.size() - kEndBytes;
    uint64_t at = last;
    const uint64_t first = last > 0xffff ? last - 0xffff : 0;
    while (number<uint32_t>(at) != 0x06054b50)
      if (at-- == first) fail(last, "its end is missing; the file is truncated");
    count_ = number<uint16_t>(at + 10);
    start_ = number<uint32_t>(at + 16);
    if (at < 20 || number<uint32_t>(at - 20) != 0x07064b50) return;
    const uint64_t large = number<uint64_t>(at - 12);
    need(large, 56, "the 64-bit end record");
    if (number<uint32_t>(large) != 0x06064b50) fail(large, "expected the 64-bit end record");
    count_ = number<uint64_t>(large + 32);
    start_ = number<uint64_t>(large + 48);
  }

  ZipEntry entry(uint64_t at, uint64_t name_bytes, uint64_t extra_bytes) const {
    ZipEntry out;
    out.name.assign(reinterpret_cast<const char*>(file_.data() + at + kEntryBytes), name_bytes);
    if (number<uint16_t>(at + 8) & 1u)
      throw_unsupported(cat(file_.path(), ": ", out.name, " is encrypted"));
    if (number<uint16_t>(at + 10) != 0)
      throw_unsupported(cat(file_.path(), ": ", out.name,
                            " is compressed; torch.save stores entries as they are"));
    uint64_t packed = number<uint32_t>(at + 20), local = number<uint32_t>(at + 42);
    out.bytes = number<uint32_t>(at + 24);
    const uint64_t extra = at + kEntryBytes + name_bytes;
    for (uint64_t i = extra; i + 4 <= extra + extra_bytes;) {
      const uint64_t size = number<uint16_t>(i + 2), end = i + 4 + size;
      if (end > extra + extra_bytes) fail(i, "a field of an entry is cut off");
      if (number<uint16_t>(i) ==
          1) {  // 64-bit values of the fields that are all ones, in this order.
        uint64_t from = i + 4;
        for (uint64_t* value : {&out.bytes, &packed, &local}) {
          if (*value != 0xffffffff) continue;
          if (from + 8 > end) fail(i, "a 64-bit size is cut off");
          *value = number<uint64_t>(from);
          from += 8;
        }
      }
      i = end;
    }
    if (packed != out.bytes) fail(at, cat(out.name, " has two sizes"));
    need(local, kLocalBytes, "an entry");
    if (number<uint32_t>(local) != 0x04034b50) fail(local, cat("expected the entry ", out.name));
    out.offset = local + kLocalBytes + number<uint16_t>(local + 26) + number<uint16_t>(local + 28);
    need(out.offset, out.bytes, "an entry's content");
    return out;
  }

  const MappedFile& file_;
  uint64_t count_ = 0, start_ = 0;
};

}  // namespace

std::vector<ZipEntry> read_zip_directory(const MappedFile& file) { return Directory(file).read(); }

}  // namespace slmc
