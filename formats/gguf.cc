// The GGUF container: parsing with every count, length and offset held against the bytes that are
// left, and writing the header.
#include "formats/gguf.h"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <type_traits>
#include <unordered_set>

#include "compress/core/error.h"
#include "compress/core/text.h"

namespace slmc {
namespace {

constexpr uint64_t kMaxName = 256;   // ggml itself stops at 64 for tensors.
constexpr uint64_t kMaxKey = 65535;  // The format's limit.
constexpr uint64_t kMaxAlignment = 1 << 16;
constexpr uint32_t kArrayType = 9;

/// The format's type number of each alternative of GgufValue, in the order of the variant.
constexpr uint32_t kTypeNumbers[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12};

template <typename T>
constexpr uint32_t type_number() {
  return kTypeNumbers[GgufValue(T{}).index()];
}

/// Reads forward through a byte range; never beyond its end.
class Reader {
 public:
  Reader(const std::byte* data, uint64_t size, const std::string& path)
      : data_(data), size_(size), path_(path) {}

  uint64_t offset() const { return offset_; }
  uint64_t left() const { return size_ - offset_; }
  const std::string& path() const { return path_; }

  [[noreturn]] void fail(const std::string& message) const {
    throw_bad_input(cat(path_, ": byte ", offset_, ": ", message));
  }

  template <typename T>
  T number(const char* what) {
    if (left() < sizeof(T)) fail(cat("the file ends inside ", what, "; it is truncated"));
    T value;
    std::memcpy(&value, data_ + offset_, sizeof(T));
    offset_ += sizeof(T);
    return value;
  }

  std::string string(const char* what, uint64_t limit) {
    const uint64_t length = number<uint64_t>(what);
    if (length > limit) fail(cat(what, " of ", length, " bytes; at most ", limit, " are allowed"));
    if (length > left())
      fail(cat(what, " of ", length, " bytes, but only ", left(),
               " are left; the file is truncated or corrupt"));
    std::string text(reinterpret_cast<const char*>(data_ + offset_), length);
    offset_ += length;
    return text;
  }

  bool boolean(const char* what) {
    const auto value = number<uint8_t>(what);
    if (value > 1) fail(cat(what, ": expected a bool of 0 or 1, found ", int{value}));
    return value == 1;
  }

  /// Number of items, each of at least `least` bytes, that the rest of the file can hold.
  uint64_t count(const char* what, uint64_t least) {
    const uint64_t items = number<uint64_t>(what);
    if (items > left() / least)
      fail(cat(what, " is ", items, ", more than the ", left(), " bytes left can hold"));
    return items;
  }

 private:
  const std::byte* data_;
  uint64_t size_, offset_ = 0;
  const std::string& path_;
};

template <typename T>
T read_item(Reader& reader) {
  if constexpr (std::is_same_v<T, bool>) {
    return reader.boolean("a key's value");
  } else if constexpr (std::is_same_v<T, std::string>) {
    return reader.string("a string", reader.left());
  } else {
    return reader.number<T>("a key's value");
  }
}

template <typename T>
GgufArray read_items(Reader& reader) {
  constexpr uint64_t kLeast =
      std::is_same_v<T, std::string> ? 8 : (std::is_same_v<T, bool> ? 1 : sizeof(T));
  const uint64_t count = reader.count("an array's length", kLeast);
  std::vector<T> items;
  items.reserve(count);
  for (uint64_t i = 0; i < count; ++i) items.push_back(read_item<T>(reader));
  return items;
}

/// Calls visitor.operator()<T>() for the alternative with the format's type number; false if there
/// is none.
template <size_t Index = 0, typename Visitor>
bool with_type(uint32_t number, const Visitor& visitor) {
  if constexpr (Index == std::size(kTypeNumbers)) {
    return false;
  } else {
    if (number == kTypeNumbers[Index]) {
      visitor.template operator()<std::variant_alternative_t<Index, GgufValue::variant>>();
      return true;
    }
    return with_type<Index + 1>(number, visitor);
  }
}

GgufValue read_value(Reader& reader, const std::string& key) {
  const auto type = reader.number<uint32_t>("a key's type");
  GgufValue value;
  if (type == kArrayType) {
    const auto item_type = reader.number<uint32_t>("an array's type");
    const bool known = with_type(item_type, [&]<typename T>() { value = read_items<T>(reader); });
    if (!known) reader.fail(cat("key ", key, ": array of unknown type ", item_type));
    return value;
  }
  const bool known = with_type(type, [&]<typename T>() { value = read_item<T>(reader); });
  if (!known) reader.fail(cat("key ", key, ": unknown type ", type));
  return value;
}

GgufTensor read_tensor(Reader& reader) {
  GgufTensor tensor;
  tensor.name = reader.string("a tensor's name", kMaxName);
  const auto dimensions = reader.number<uint32_t>("a tensor's dimensions");
  if (dimensions < 1 || dimensions > 4)
    reader.fail(cat("tensor ", tensor.name, ": expected 1 to 4 dimensions, found ", dimensions));
  uint64_t elements = 1;
  for (uint32_t i = 0; i < dimensions; ++i) {
    const auto size = reader.number<uint64_t>("a tensor's dimension");
    if (size == 0 || size > (uint64_t{1} << 40))
      reader.fail(cat("tensor ", tensor.name, ": dimension ", i, " is ", size));
    elements = checked_multiply(elements, size, cat("tensor ", tensor.name));
    tensor.shape.insert(tensor.shape.begin(), static_cast<int64_t>(size));
  }
  if (elements > (uint64_t{1} << 48))
    reader.fail(cat("tensor ", tensor.name, ": ", elements, " elements"));
  const auto type = reader.number<uint32_t>("a tensor's type");
  tensor.dtype = static_cast<DType>(type);
  if (type >= static_cast<uint32_t>(DType::kU8) || !dtype_known(tensor.dtype)) {
    throw_unsupported(cat(reader.path(), ": byte ", reader.offset() - 4, ": tensor ", tensor.name,
                          " has type number ", type, ", which this version of slmc does not know"));
  }
  const int64_t columns = tensor.shape.back();
  if (columns % dtype_block(tensor.dtype) != 0) {
    reader.fail(cat("tensor ", tensor.name, ": rows of ", columns,
                    " elements do not divide into blocks of ", dtype_name(tensor.dtype)));
  }
  tensor.bytes =
      checked_multiply(dtype_row_bytes(tensor.dtype, columns),
                       elements / static_cast<uint64_t>(columns), cat("tensor ", tensor.name));
  tensor.offset = reader.number<uint64_t>("a tensor's offset");
  return tensor;
}

uint64_t round_up(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

/// Makes offsets absolute and checks that the tensors lie aligned, inside the file and apart from
/// each other.
void place_tensors(GgufFile& gguf, uint64_t directory_end, const std::string& path) {
  const int64_t alignment = gguf.keys.integer_or("general.alignment", 32, path);
  if (alignment < 1 || alignment > static_cast<int64_t>(kMaxAlignment) ||
      (alignment & (alignment - 1)) != 0) {
    throw_bad_input(cat(path, ": general.alignment is ", alignment,
                        "; expected a power of two up to ", kMaxAlignment));
  }
  const uint64_t align = static_cast<uint64_t>(alignment);
  const uint64_t start = round_up(directory_end, align);
  const uint64_t size = gguf.file->size();
  std::vector<const GgufTensor*> order;
  for (GgufTensor& tensor : gguf.tensors) {
    if (tensor.offset % align != 0) {
      throw_bad_input(cat(path, ": tensor ", tensor.name, ": offset ", tensor.offset,
                          " is not a multiple of the alignment ", alignment));
    }
    if (start > size || tensor.offset > size - start ||
        tensor.bytes > size - start - tensor.offset) {
      throw_bad_input(cat(path, ": tensor ", tensor.name, ": ", tensor.bytes, " bytes from byte ",
                          start, " + ", tensor.offset, " go beyond the file's ", size,
                          " bytes; it is truncated or corrupt"));
    }
    tensor.offset += start;
    order.push_back(&tensor);
  }
  std::sort(order.begin(), order.end(),
            [](const GgufTensor* a, const GgufTensor* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < order.size(); ++i) {
    if (order[i - 1]->offset + order[i - 1]->bytes > order[i]->offset) {
      throw_bad_input(cat(path, ": byte ", order[i]->offset, ": tensors ", order[i - 1]->name,
                          " and ", order[i]->name, " overlap"));
    }
  }
}

void check_version(Reader& reader, const std::string& path) {
  if (reader.left() < 4 || reader.number<uint32_t>("the magic") != 0x46554747u)
    throw_bad_input(cat(path, ": byte 0: expected the magic \"GGUF\""));
  const auto version = reader.number<uint32_t>("the version");
  if (version == 2 || version == 3) return;
  if (version == 0x02000000u || version == 0x03000000u)
    throw_unsupported(cat(path, ": a big-endian GGUF; convert it on the machine that wrote it"));
  throw_unsupported(cat(path, ": GGUF version ", version, "; versions 2 and 3 are known"));
}

}  // namespace

GgufFile GgufFile::open(const std::string& path) {
  GgufFile gguf;
  gguf.file = MappedFile::open(path);
  Reader reader(gguf.file->data(), gguf.file->size(), path);
  check_version(reader, path);
  const uint64_t tensor_count = reader.number<uint64_t>("the number of tensors");
  if (tensor_count > reader.left() / 32)
    reader.fail(cat("number of tensors is ", tensor_count, ", more than the ", reader.left(),
                    " bytes left can hold"));
  const uint64_t key_count = reader.count("the number of keys", 13);
  std::unordered_set<std::string> seen;
  std::vector<std::pair<std::string, GgufValue>> items;
  for (uint64_t i = 0; i < key_count; ++i) {
    std::string key = reader.string("a key", kMaxKey);
    if (!seen.insert(key).second) reader.fail(cat("key ", key, " appears twice"));
    GgufValue value = read_value(reader, key);
    items.emplace_back(std::move(key), std::move(value));
  }
  gguf.keys = GgufKeys(std::move(items));
  seen.clear();
  for (uint64_t i = 0; i < tensor_count; ++i) {
    gguf.tensors.push_back(read_tensor(reader));
    if (!seen.insert(gguf.tensors.back().name).second)
      reader.fail(cat("tensor ", gguf.tensors.back().name, " appears twice"));
  }
  place_tensors(gguf, reader.offset(), path);
  return gguf;
}

const GgufTensor* GgufFile::find(const std::string& name) const {
  for (const GgufTensor& tensor : tensors) {
    if (tensor.name == name) return &tensor;
  }
  return nullptr;
}

namespace {

template <typename T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(T));
}

void put_string(std::string& out, std::string_view text) {
  put<uint64_t>(out, text.size());
  out.append(text);
}

template <typename T>
void put_item(std::string& out, const T& value) {
  if constexpr (std::is_same_v<T, bool>) {
    put<uint8_t>(out, value ? 1 : 0);
  } else if constexpr (std::is_same_v<T, std::string>) {
    put_string(out, value);
  } else {
    put<T>(out, value);
  }
}

void put_value(std::string& out, const GgufValue& value) {
  std::visit(
      [&out](const auto& held) {
        using T = std::decay_t<decltype(held)>;
        if constexpr (std::is_same_v<T, GgufArray>) {
          put<uint32_t>(out, kArrayType);
          std::visit(
              [&out](const auto& items) {
                using Item = typename std::decay_t<decltype(items)>::value_type;
                put<uint32_t>(out, type_number<Item>());
                put<uint64_t>(out, items.size());
                for (const Item& item : items) put_item<Item>(out, item);
              },
              held);
        } else {
          put<uint32_t>(out, type_number<T>());
          put_item<T>(out, held);
        }
      },
      value);
}

}  // namespace

std::string gguf_header(const GgufKeys& keys, const std::vector<GgufTensor>& tensors,
                        uint64_t alignment) {
  std::string out = "GGUF";
  put<uint32_t>(out, 3);
  put<uint64_t>(out, tensors.size());
  put<uint64_t>(out, keys.items().size());
  for (const auto& [key, value] : keys.items()) {
    put_string(out, key);
    put_value(out, value);
  }
  for (const GgufTensor& tensor : tensors) {
    put_string(out, tensor.name);
    put<uint32_t>(out, static_cast<uint32_t>(tensor.shape.size()));
    for (auto size = tensor.shape.rbegin(); size != tensor.shape.rend(); ++size)
      put<uint64_t>(out, static_cast<uint64_t>(*size));
    put<uint32_t>(out, static_cast<uint32_t>(tensor.dtype));
    put<uint64_t>(out, tensor.offset);
  }
  out.resize(round_up(out.size(), alignment), '\0');
  return out;
}

}  // namespace slmc
