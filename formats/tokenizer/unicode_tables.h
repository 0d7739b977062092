// The generated tables behind unicode.h; see unicode_tables.py for where they come from and how an
// entry reads.
#pragma once

#include <cstddef>
#include <cstdint>

namespace slmc::unicode {

extern const uint32_t kProperties[];
extern const size_t kProperties_count;
extern const uint32_t kCombining[];
extern const size_t kCombining_count;
extern const uint32_t kLegacy[];
extern const size_t kLegacy_count;
extern const uint32_t kGrapheme[];
extern const size_t kGrapheme_count;
extern const int32_t kCompatibleRuns[];
extern const size_t kCompatibleRuns_count;
extern const uint32_t kCanonical[];
extern const size_t kCanonical_count;
extern const uint32_t kCompatible[];
extern const size_t kCompatible_count;
extern const uint32_t kCompositions[];
extern const size_t kCompositions_count;
extern const int32_t kLower[];
extern const size_t kLower_count;

}  // namespace slmc::unicode
