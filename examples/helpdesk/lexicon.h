// The things that messages name. Those for the test split never occur in training: a model cannot
// know them, only copy them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "compress/core/random.h"

namespace slmc::helpdesk {

enum class Split { kTrain, kTest };

struct Fault {
  std::string_view label;  ///< What the answer calls it: "leaks water".
  std::string_view kinds;  ///< Letters of the product kinds that can have it.
  bool danger;             ///< The agent says to unplug it.
  std::vector<std::string_view>
      said;  ///< How customers say it, after "it" or "my kettle"; patterns.
  std::vector<std::string_view> said_in_test;
};

struct Product {
  std::string name;
  char kind;    ///< w water, c cooling, h heating, a air, v cleaning, k kitchen, p personal.
  bool unseen;  ///< Only in the test split.
};

const std::vector<Fault>& faults();
/// In the test split three in ten are products that training never named.
Product random_product(Random& random, Split split);
const Fault& random_fault(Random& random, char kind);

/// Invented names and numbers. Those of the two splits differ by a hash, so they never meet.
std::string random_brand(Random& random, Split split);
std::string random_city(Random& random, Split split);
std::string random_first_name(Random& random, Split split);
std::string random_model(Random& random);
std::string random_order(Random& random);
std::string random_date(Random& random);
std::string random_amount(Random& random);
std::string random_email(Random& random, Split split);
std::string random_code(Random& random);
std::string random_error(Random& random);
std::string random_part(Random& random, char kind);
std::string random_payment_method(Random& random);
std::string random_shop(Random& random, Split split);

}  // namespace slmc::helpdesk
