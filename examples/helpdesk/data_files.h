// The helpdesk data as files: train.jsonl and valid.jsonl to train on, calibration.jsonl for stages
// that need some text, test.jsonl for perplexity and divergence, test_tasks.jsonl to score answers.
// All from a seed; no two files share a conversation.
#pragma once

#include <cstdint>
#include <string>

namespace slmc::helpdesk {

struct DataOptions {
  std::string folder;      ///< Made if absent.
  uint64_t train = 60000;  ///< Conversations in train.jsonl.
  uint64_t test = 400;     ///< Conversations in test_tasks.jsonl.
  uint64_t drills = 0;  ///< Copying drills in drills.jsonl, with as many answers to conversations;
                        ///< 0: no such file.
  uint64_t seed = 1;
};
void write_data(const DataOptions& options);

}  // namespace slmc::helpdesk
