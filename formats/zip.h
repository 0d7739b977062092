// Reading a zip archive whose entries are stored, not compressed, as torch.save writes them.
// Source: PKWARE's APPNOTE 6.3.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "compress/core/mapped_file.h"

namespace slmc {

struct ZipEntry {
  std::string name;
  uint64_t offset = 0;  ///< Of the content, from the start of the file.
  uint64_t bytes = 0;
};

/// The central directory, zip64 included. Throws Error(kBadInput) naming the file and offset for
/// what is not a whole archive, Error(kUnsupported) for compressed or encrypted entries. Every
/// entry lies inside the file; checksums are not computed.
std::vector<ZipEntry> read_zip_directory(const MappedFile& file);

}  // namespace slmc
