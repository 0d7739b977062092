// The largest magnitude seen: nothing is cut off, and one outlier can cost all others their
// precision.
#include "quantize/observer.h"

namespace slmc {

const Observer& observer_minmax();
const Observer& observer_minmax() {
  static const Observer observer = {
      "minmax", "the largest magnitude seen",
      [](const InputHistogram& inputs) { return static_cast<double>(inputs.peak()); }};
  return observer;
}

}  // namespace slmc
