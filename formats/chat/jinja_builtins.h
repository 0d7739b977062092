// Filters, tests and methods of the Jinja interpreter, as jinja2 and Python define them.
#pragma once

#include <string>
#include <string_view>

#include "formats/chat/jinja_value.h"

namespace slmc::jinja {

Value apply_filter(const std::string& name, const Value& input, const Arguments& arguments);
bool apply_test(const std::string& name, const Value& input, const Arguments& arguments);
/// A method of a string, list or dictionary, bound to it; undefined if it has none of this name.
Value method_of(const Value& object, const std::string& name);
/// `range`, `namespace`, `dict`; undefined for other names.
Value global(const std::string& name);

}  // namespace slmc::jinja
