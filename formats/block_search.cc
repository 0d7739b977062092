// The scale search by the instructions that every processor of the architecture has; what the
// others must equal.
#include "formats/block_search.h"

namespace slmc {
namespace {

#define SLMC_SEARCH_LANES 4
#include "formats/block_search_body.h"

}  // namespace

void search_blocks(const BlockSearch& job) { search(job); }

}  // namespace slmc
