// What a training run will cost, from sizes alone.
#pragma once

#include <cstdint>

#include "formats/architecture.h"

namespace slmc {

/// A rough figure for plans that only know the text's bytes.
constexpr uint64_t kBytesPerToken = 4;

struct TrainingSize {
  const Architecture* student = nullptr;
  const Architecture* teacher = nullptr;  ///< Null: none.
  int64_t tokens = 0;
  int64_t micro_tokens = 0;
  int64_t lanes = 0;
  uint64_t text_bytes = 0;
  bool keep_sparsity = false;
  int64_t trained = 0;        ///< Parameters that are; 0: all.
  int64_t first_layer = 0;    ///< Nothing is kept of the layers before it.
  int64_t frozen_tokens = 0;  ///< That these layers see, once each; 0: all.
  int64_t compared = 0;       ///< Floats a position that losses over hidden states hold.
  int ranks = 1;              ///< Processes that share the lanes and the moments.
  bool rounded = false;       ///< The network runs on rounded copies of the weights.
  bool recompute = false;     ///< Blocks keep only what enters them.
  bool samples = false;       ///< The runtime writes the student's own samples.
  bool on_cpu = true;         ///< Otherwise a device has the activations.
};

/// Peak bytes of one rank: LibTorch itself, weights, two moments and a gradient a lane in f32, the
/// teacher in f32, activations of the lanes that run at once. Of host memory alone.
uint64_t training_memory(const TrainingSize& size);
/// Seconds at the rate assumed for float32 matrix products on this machine's threads, which every
/// rank is assumed to have; a guess within a factor of two or three. 0 for a device: only a probe
/// can say.
double training_seconds(const TrainingSize& size);

}  // namespace slmc
