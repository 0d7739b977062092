#include "quantize/observer.h"

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/group_types.h"

namespace slmc {

const std::vector<const Observer& (*)()>&
observer_table();  // Made by the build from quantize/observers/*.cc.

const std::vector<const Observer*>& observers() {
  static const std::vector<const Observer*> all = [] {
    std::vector<const Observer*> list;
    for (auto* entry : observer_table()) list.push_back(&entry());
    return list;
  }();
  return all;
}

std::vector<std::string> observer_names() {
  std::vector<std::string> names;
  for (const Observer* observer : observers()) names.push_back(observer->name);
  return names;
}

const Observer& observer_by_name(const std::string& name) {
  for (const Observer* observer : observers()) {
    if (observer->name == name) return *observer;
  }
  throw_usage(cat("observer '", name, "' is not known; expected one of ",
                  join(observer_names(), ", "), did_you_mean(name, observer_names())));
}

float observed_scale(const Observer& observer, const InputHistogram& inputs,
                     const std::string& layer) {
  if (!(inputs.peak() > 0)) {
    throw_bad_input(
        cat("calibration: ", layer,
            ": all are zero, so they have no scale; give other text, or leave --observer "
            "out"));
  }
  return storable_scale(static_cast<float>(observer.threshold(inputs) / kInputSteps));
}

}  // namespace slmc
