#include "compress/runtime/npy.h"

#include "compress/core/atomic_file.h"
#include "compress/core/tensor.h"

namespace slmc {

void write_npy(const std::string& path, const std::vector<int64_t>& shape, const float* data) {
  std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (";
  for (const int64_t size : shape) header += std::to_string(size) + ",";
  header += "), }";
  const std::string magic("\x93NUMPY\x01\x00", 8);
  while ((magic.size() + 2 + header.size() + 1) % 64 != 0) header += ' ';
  header += '\n';
  const char length[2] = {static_cast<char>(header.size() & 0xff),
                          static_cast<char>(header.size() >> 8)};
  AtomicFile file(path);
  file.append(magic.data(), magic.size());
  file.append(length, 2);
  file.append(header.data(), header.size());
  file.append(data, static_cast<size_t>(element_count(shape)) * sizeof(float));
  file.commit();
}

}  // namespace slmc
