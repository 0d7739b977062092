// A training or its forecast from beginning to end, with what holds for the process meanwhile.
#include <malloc.h>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "compress/torch/device.h"
#include "compress/torch/precompiled.h"
#include "compress/torch/trainer.h"
#include "distill/checkpoint.h"

namespace slmc::libtorch {
namespace {

constexpr char kSmaller[] =
    "give a smaller --micro-batch or --context, --dtype bf16, --recompute, or another device";

/// Tensors of a step are freed and allocated again at the next; handing their pages back in
/// between would cost more than the arithmetic.
void keep_pages() {
  mallopt(M_MMAP_THRESHOLD, 1 << 28);
  mallopt(M_TRIM_THRESHOLD, 1 << 29);
}

}  // namespace

Report train(const TrainingJob& job, Context& context, const std::string& torch_version,
             RankGroup& group) {
  keep_pages();
  try {
    Report report = within_memory(context.device, kSmaller, [&] {
      return Trainer(job, context, device_of(context), torch_version, group).run();
    });
    malloc_trim(0);  // What follows needs its own.
    return report;
  } catch (const Error& error) {
    if (!group.lost() || !has_checkpoint(job.checkpoint_folder)) throw;
    throw Error(error.code(), cat(error.what(), "; --resume goes on from the last checkpoint, in ",
                                  job.checkpoint_folder));
  }
}

TrainingForecast forecast(const TrainingJob& job, Context& context,
                          const std::string& torch_version) {
  keep_pages();
  const auto group = group_of_one(context.ranks);
  return within_memory(context.device, kSmaller, [&] {
    return Trainer(job, context, device_of(context), torch_version, *group).forecast();
  });
}

}  // namespace slmc::libtorch
