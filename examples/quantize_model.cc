// Quantizes a model from C++: quantize-model MODEL OUT.gguf. A stage is options, a plan that reads
// headers only, and one run that writes.
#include <iostream>

#include "compress/core/error.h"
#include "quantize/stage.h"

int main(int count, char** arguments) {
  if (count != 3) {
    std::cerr << "usage: quantize-model MODEL OUT.gguf\n";
    return 2;
  }
  try {
    const auto progress = slmc::make_progress(0);
    slmc::Context context;
    context.progress = progress.get();

    slmc::QuantizeStage quantize;
    quantize.options.model = arguments[1];
    quantize.options.output = arguments[2];
    quantize.options.scheme = "q4_0";
    quantize.options.rule = {"ffn_down=q8_0"};  // The most sensitive matrices of many models.

    const slmc::Plan plan = quantize.plan({});
    std::cout << slmc::plan_text(plan);
    const slmc::Report report = quantize.run(plan, context);
    std::cout << report.at("output") << ": " << report.at("bits_per_weight") << " bits a weight\n";
    return 0;
  } catch (const slmc::Error& error) {  // One line: what, where, expected, found, what to do.
    std::cerr << error.what() << "\n";
    return static_cast<int>(error.code());
  }
}
