// The scale search in 8 lanes. Compiled with flags of its own; includes nothing that could leave
// inline functions behind.
#if defined(__x86_64__)
#include "formats/block_search.h"
#include "quantize/kernels/kernels.h"

namespace slmc {
namespace {

#define SLMC_SEARCH_LANES 8
#include "formats/block_search_body.h"

}  // namespace

void search_blocks_avx2(const BlockSearch& job) { search(job); }

}  // namespace slmc
#endif
