#include "formats/pickle.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>
#include <unordered_map>
#include <utility>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/tokenizer/unicode.h"

namespace slmc {
namespace {

constexpr size_t kMostObjects = 1'000'000;  // A hostile file could fill memory with empty values.

enum class Kind {
  kNone,
  kBool,
  kInteger,
  kFloat,
  kText,
  kTuple,
  kList,
  kDict,
  kGlobal,
  kStorage,
  kTensor,
  kMark
};

/// A value; all live until the reader is gone, so that lists in lists of any depth cost no
/// recursion.
struct Object {
  Kind kind = Kind::kNone;
  int64_t integer = 0;
  std::string text;            // Also "module name" of a global.
  std::vector<Object*> items;  // Of a dictionary: key, value, key, value...
  PickledTensor tensor;        // Of a storage: its name, type and size.
};

struct StorageType {
  const char* name;
  DType dtype;
};
constexpr StorageType kStorages[] = {
    {"torch FloatStorage", DType::kF32},     {"torch HalfStorage", DType::kF16},
    {"torch BFloat16Storage", DType::kBF16}, {"torch DoubleStorage", DType::kF64},
    {"torch CharStorage", DType::kI8},       {"torch ByteStorage", DType::kU8},
    {"torch ShortStorage", DType::kI16},     {"torch IntStorage", DType::kI32},
    {"torch LongStorage", DType::kI64},      {"torch BoolStorage", DType::kBool}};
constexpr const char* kOrderedDict = "collections OrderedDict";
constexpr const char* kRebuildTensor = "torch._utils _rebuild_tensor_v2";
constexpr const char* kRebuildParameter = "torch._utils _rebuild_parameter";

class Unpickler {
 public:
  Unpickler(std::string_view pickle, const std::string& where) : pickle_(pickle), where_(where) {}

  std::vector<PickledTensor> run() {
    while (true) {
      const auto opcode = static_cast<unsigned char>(take(1)[0]);
      if (opcode == '.') break;
      step(opcode);
    }
    const Object* root = pop();
    if (root->kind != Kind::kDict) fail("expected a dictionary of tensors");
    std::vector<PickledTensor> tensors;
    for (size_t i = 0; i < root->items.size(); i += 2) {
      const Object &key = *root->items[i], &value = *root->items[i + 1];
      if (key.kind != Kind::kText) fail("expected tensors by name");
      if (value.kind != Kind::kTensor)
        throw_unsupported(
            cat(where_, ": '", key.text.substr(0, 100),
                "' is not a tensor; expected a state dict, as save_pretrained writes it"));
      tensors.push_back(value.tensor);
      tensors.back().name = key.text;
    }
    return tensors;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw_bad_input(cat(where_, ": byte ", at_, " of its pickle: ", what));
  }

  // --- Bytes ---
  std::string_view take(uint64_t bytes) {
    if (bytes > pickle_.size() - at_) fail("the pickle ends too early");
    const std::string_view out = pickle_.substr(at_, bytes);
    at_ += bytes;
    return out;
  }
  template <typename T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  std::string line() {
    const size_t end = pickle_.find('\n', at_);
    if (end == std::string_view::npos) fail("a line does not end");
    const std::string text(take(end - at_));
    take(1);
    return text;
  }

  // --- The stack ---
  Object* make(Kind kind) {
    if (arena_.size() >= kMostObjects) fail("more values than any state dict has");
    arena_.push_back(std::make_unique<Object>());
    arena_.back()->kind = kind;
    return arena_.back().get();
  }
  void push(Object* object) { stack_.push_back(object); }
  void push_integer(int64_t value, Kind kind = Kind::kInteger) {
    Object* object = make(kind);
    object->integer = value;
    push(object);
  }
  void push_text(std::string_view text) {
    if (!unicode::is_valid(text)) fail("a text is not UTF-8");
    Object* object = make(Kind::kText);
    object->text = text;
    push(object);
  }
  Object* top() {
    if (stack_.empty() || stack_.back()->kind == Kind::kMark) fail("a value is missing");
    return stack_.back();
  }
  Object* pop() {
    Object* object = top();
    stack_.pop_back();
    return object;
  }
  std::vector<Object*> pop_to_mark() {
    size_t mark = stack_.size();
    while (mark > 0 && stack_[mark - 1]->kind != Kind::kMark) --mark;
    if (mark == 0) fail("a mark is missing");
    std::vector<Object*> items(stack_.begin() + static_cast<ptrdiff_t>(mark), stack_.end());
    stack_.resize(mark - 1);
    return items;
  }
  void push_tuple(std::vector<Object*> items) {
    Object* tuple = make(Kind::kTuple);
    tuple->items = std::move(items);
    push(tuple);
  }
  void push_tuple_of(size_t count) {
    std::vector<Object*> items(count);
    for (size_t i = count; i-- > 0;) items[i] = pop();
    push_tuple(std::move(items));
  }
  void add_items(const std::vector<Object*>& items, Kind kind) {
    Object* target = top();
    if (target->kind != kind || (kind == Kind::kDict && items.size() % 2 != 0))
      fail("items for something else");
    target->items.insert(target->items.end(), items.begin(), items.end());
  }

  void step(unsigned char opcode) {
    switch (opcode) {
      case 0x80:  // PROTO
        if (const auto version = number<uint8_t>(); version > 5)
          throw_unsupported(cat(where_, ": pickle protocol ", int{version}));
        return;
      case 0x95:  // FRAME
        number<uint64_t>();
        return;
      case '(':
        return push(make(Kind::kMark));
      case 'N':
        return push(make(Kind::kNone));
      case 0x88:
      case 0x89:
        return push_integer(opcode == 0x88, Kind::kBool);
      case 'K':
        return push_integer(number<uint8_t>());
      case 'M':
        return push_integer(number<uint16_t>());
      case 'J':
        return push_integer(number<int32_t>());
      case 0x8a:  // LONG1
        return long_integer();
      case 'G':  // Big-endian; no tensor needs its value.
        number<uint64_t>();
        return push(make(Kind::kFloat));
      case 'X':
        return push_text(take(number<uint32_t>()));
      case 0x8c:
        return push_text(take(number<uint8_t>()));
      case '}':
        return push(make(Kind::kDict));
      case ']':
        return push(make(Kind::kList));
      case ')':
        return push_tuple({});
      case 't':
        return push_tuple(pop_to_mark());
      case 0x85:
      case 0x86:
      case 0x87:
        return push_tuple_of(opcode - 0x84u);
      case 'a': {
        Object* item = pop();
        return add_items({item}, Kind::kList);
      }
      case 'e':
        return add_items(pop_to_mark(), Kind::kList);
      case 's': {
        Object* value = pop();
        Object* key = pop();
        return add_items({key, value}, Kind::kDict);
      }
      case 'u':
        return add_items(pop_to_mark(), Kind::kDict);
      case 'q':
        memo_[number<uint8_t>()] = top();
        return;
      case 'r':
        memo_[number<uint32_t>()] = top();
        return;
      case 0x94:  // MEMOIZE
        memo_[static_cast<uint32_t>(memo_.size())] = top();
        return;
      case 'h':
        return recall(number<uint8_t>());
      case 'j':
        return recall(number<uint32_t>());
      case 'c': {
        const std::string module = line();
        return global(module + " " + line());
      }
      case 0x93: {  // STACK_GLOBAL
        const Object *name = pop(), *module = pop();
        return global(module->text + " " + name->text);
      }
      case 'Q':
        return storage();
      case 'R':
        return call();
      case 'b': {  // BUILD: the attributes of an OrderedDict (_metadata) say nothing of tensors.
        pop();
        if (top()->kind != Kind::kDict) fail("attributes of something that is no dictionary");
        return;
      }
      default:
        --at_;
        throw_unsupported(cat(where_, ": byte ", at_, " of its pickle: opcode ", int{opcode},
                              ", which no tensor needs"));
    }
  }

  void recall(uint32_t index) {
    const auto found = memo_.find(index);
    if (found == memo_.end()) fail("a value that was not kept");
    push(found->second);
  }

  void long_integer() {
    const std::string_view bytes = take(number<uint8_t>());
    if (bytes.size() > 8) fail("an integer of more than 64 bits");
    uint64_t value =
        !bytes.empty() && static_cast<unsigned char>(bytes.back()) >= 0x80 ? ~uint64_t{0} : 0;
    std::memcpy(&value, bytes.data(), bytes.size());
    push_integer(static_cast<int64_t>(value));
  }

  void global(const std::string& name) {
    const bool storage_type = std::any_of(std::begin(kStorages), std::end(kStorages),
                                          [&](const auto& s) { return name == s.name; });
    if (!storage_type && name != kOrderedDict && name != kRebuildTensor &&
        name != kRebuildParameter) {
      std::string dotted = name.substr(0, 200);
      std::replace(dotted.begin(), dotted.end(), ' ', '.');
      throw_unsupported(
          cat(where_, ": the pickle names ", dotted,
              ", which no tensor needs; only files that hold nothing but tensors are read (write "
              "safetensors instead)"));
    }
    Object* object = make(Kind::kGlobal);
    object->text = name;
    push(object);
  }

  /// A persistent id: ('storage', type, name, device, elements).
  void storage() {
    const Object* id = pop();
    const bool whole = id->kind == Kind::kTuple && id->items.size() == 5 &&
                       id->items[0]->text == "storage" && id->items[1]->kind == Kind::kGlobal &&
                       id->items[2]->kind == Kind::kText && id->items[4]->kind == Kind::kInteger &&
                       id->items[4]->integer >= 0;
    if (!whole) fail("a storage is not described as torch.save does");
    const auto type = std::find_if(std::begin(kStorages), std::end(kStorages),
                                   [&](const auto& s) { return id->items[1]->text == s.name; });
    if (type == std::end(kStorages)) fail("a storage of no type");
    Object* object = make(Kind::kStorage);
    object->tensor.dtype = type->dtype;
    object->tensor.storage = id->items[2]->text;
    object->tensor.storage_elements = static_cast<uint64_t>(id->items[4]->integer);
    push(object);
  }

  std::vector<int64_t> sizes(const Object& tuple) const {
    std::vector<int64_t> out;
    for (const Object* item : tuple.items) {
      if (item->kind != Kind::kInteger || item->integer < 0)
        fail("a size that is not a whole number");
      out.push_back(item->integer);
    }
    return out;
  }

  void call() {
    const Object *arguments = pop(), *function = pop();
    if (arguments->kind != Kind::kTuple || function->kind != Kind::kGlobal)
      fail("a call of something that is no function");
    const std::vector<Object*>& a = arguments->items;
    if (function->text == kOrderedDict && a.empty()) return push(make(Kind::kDict));
    if (function->text == kRebuildParameter && !a.empty() && a[0]->kind == Kind::kTensor)
      return push(a[0]);
    if (function->text != kRebuildTensor || a.size() < 4 || a[0]->kind != Kind::kStorage ||
        a[1]->kind != Kind::kInteger || a[1]->integer < 0 || a[2]->kind != Kind::kTuple ||
        a[3]->kind != Kind::kTuple)
      fail("a call that is not one of torch.save's");
    Object* object = make(Kind::kTensor);
    object->tensor = a[0]->tensor;
    object->tensor.first = static_cast<uint64_t>(a[1]->integer);
    object->tensor.shape = sizes(*a[2]);
    object->tensor.strides = sizes(*a[3]);
    if (object->tensor.shape.size() != object->tensor.strides.size())
      fail("a tensor with fewer strides than sizes");
    push(object);
  }

  std::string_view pickle_;
  const std::string& where_;
  size_t at_ = 0;
  std::vector<std::unique_ptr<Object>> arena_;
  std::vector<Object*> stack_;
  std::unordered_map<uint32_t, Object*> memo_;
};

}  // namespace

std::vector<PickledTensor> read_pickled_tensors(std::string_view pickle, const std::string& where) {
  return Unpickler(pickle, where).run();
}

}  // namespace slmc
