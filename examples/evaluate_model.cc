// Perplexity of a model, and its divergence from a teacher, from C++: evaluate-model MODEL TEXT
// [TEACHER].
#include <iostream>

#include "compress/core/error.h"
#include "compress/runtime/evaluate.h"

int main(int count, char** arguments) {
  if (count != 3 && count != 4) {
    std::cerr << "usage: evaluate-model MODEL TEXT [TEACHER]\n";
    return 2;
  }
  try {
    const auto progress = slmc::make_progress(0);
    slmc::Context context;
    context.progress = progress.get();
    const auto model = slmc::Model::open(arguments[1]);
    const auto teacher = count == 4 ? slmc::Model::open(arguments[3]) : nullptr;
    const slmc::Json figures =
        slmc::evaluate_text(*model, teacher.get(), arguments[2], {.max_tokens = 4096}, context);
    std::cout << "perplexity " << figures.at("perplexity") << " +- " << figures.at("perplexity_se")
              << "\n";
    if (teacher) std::cout << "KL divergence " << figures.at("against").at("kld_mean") << " nats\n";
    return 0;
  } catch (const slmc::Error& error) {
    std::cerr << error.what() << "\n";
    return static_cast<int>(error.code());
  }
}
