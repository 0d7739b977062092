#include "examples/helpdesk/lexicon.h"

#include "compress/core/text.h"
#include "examples/helpdesk/grammar.h"

namespace slmc::helpdesk {
namespace {

using Words = std::vector<std::string_view>;

struct ProductGroup {
  char kind;
  Words names, names_in_test;
};

const std::vector<ProductGroup>& product_groups() {
  static const std::vector<ProductGroup> groups = {
      {'w',
       {"washing machine", "dishwasher", "washer dryer", "coffee machine", "espresso maker",
        "water heater", "steam mop", "ice maker", "water filter", "kettle", "humidifier",
        "carpet washer"},
       {"milk frother", "water softener", "pressure washer"}},
      {'c',
       {"fridge", "freezer", "fridge freezer", "wine cooler", "mini fridge", "chest freezer",
        "ice cream maker", "cool box"},
       {"beer cooler", "larder fridge"}},
      {'h',
       {"oven", "microwave", "toaster", "induction hob", "gas hob", "tumble dryer", "air fryer",
        "rice cooker", "slow cooker", "waffle iron", "electric grill", "heated blanket",
        "fan heater", "steam oven"},
       {"pizza oven", "egg boiler", "patio heater", "towel warmer"}},
      {'a',
       {"air conditioner", "ceiling fan", "tower fan", "air purifier", "cooker hood",
        "dehumidifier", "desk fan"},
       {"window fan", "air cooler"}},
      {'v',
       {"vacuum cleaner", "robot vacuum", "handheld vacuum", "floor polisher", "window cleaner",
        "cordless vacuum"},
       {"ash vacuum", "robot mop"}},
      {'k',
       {"blender", "hand mixer", "food processor", "juicer", "stand mixer", "coffee grinder",
        "meat slicer", "kitchen scale", "can opener", "bread maker"},
       {"soup maker", "pasta maker", "hand blender"}},
      {'p',
       {"hair dryer", "electric shaver", "steam iron", "electric toothbrush", "sewing machine",
        "hair straightener", "beard trimmer", "garment steamer"},
       {"curling iron", "foot massager"}},
  };
  return groups;
}

// FNV-1a; decides which split an invented name belongs to.
bool belongs_to_test(std::string_view name) {
  uint32_t hash = 2166136261u;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
  return (hash >> 16) % 6 == 0;
}

template <typename Make>
std::string of_split(Split split, Make make) {
  for (;;) {
    std::string name = make();
    if (belongs_to_test(name) == (split == Split::kTest)) return name;
  }
}

std::string capitalised(std::string text) {
  if (text[0] >= 'a' && text[0] <= 'z') text[0] = static_cast<char>(text[0] - 'a' + 'A');
  return text;
}

std::string digits(Random& random, int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += static_cast<char>('0' + random.below(10));
  return out;
}

std::string letters(Random& random, int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += "ABCDEFGHKLMNPRSTVWXZ"[random.below(20)];
  return out;
}

std::string from_pattern(std::string_view pattern, Random& random) {
  std::string out;
  for (const Piece& piece : expand(pattern, random, [](std::string_view) { return Piece{}; }))
    out += piece.text;
  return out;
}

}  // namespace

Product random_product(Random& random, Split split) {
  const bool unseen = split == Split::kTest && chance(random, 0.3);
  std::vector<Product> all;
  for (const ProductGroup& group : product_groups())
    for (const std::string_view name : unseen ? group.names_in_test : group.names)
      all.push_back({std::string(name), group.kind, unseen});
  return choose(all, random);
}

const Fault& random_fault(Random& random, char kind) {
  for (;;) {
    const Fault& fault = choose(faults(), random);
    if (fault.kinds.find(kind) != std::string_view::npos) return fault;
  }
}

std::string random_brand(Random& random, Split split) {
  static const Words first = {"vel", "nor", "bri", "kal", "dom", "fer", "lun", "zan", "ost",
                              "hav", "gri", "tem", "pol", "sir", "mer", "bos", "ard", "eck",
                              "jun", "wil", "cor", "rav", "ulm", "tho", "pel", "quin"};
  static const Words last = {"ko",  "vex",  "mota", "tan", "lux",  "ria", "berg", "dex",
                             "na",  "stad", "mix",  "ro",  "line", "tek", "well", "sa",
                             "max", "gard", "isto", "ell", "on",   "ura", "aro",  "is"};
  return of_split(split,
                  [&] { return capitalised(cat(choose(first, random), choose(last, random))); });
}

std::string random_city(Random& random, Split split) {
  static const Words first = {"ash",  "marl", "kelm",  "brad",  "oak",  "win",  "har",
                              "stan", "clay", "red",   "thorn", "mill", "west", "green",
                              "hol",  "wal",  "black", "cran",  "lang", "fair", "north",
                              "elm",  "pen",  "rock",  "swan",  "whit", "dun",  "car"};
  static const Words last = {"ford",  "brook", "sted", "ton",   "field",   "bury", "wick",
                             "mouth", "ham",   "dale", "port",  "bridge",  "well", "by",
                             "gate",  "worth", "ley",  "haven", "minster", "combe"};
  static const Words front = {"", "", "", "", "", "", "New ", "Saint ", "Upper ", "Port "};
  return of_split(split, [&] {
    return cat(choose(front, random),
               capitalised(cat(choose(first, random), choose(last, random))));
  });
}

std::string random_first_name(Random& random, Split split) {
  static const Words first = {"ma", "jo", "el", "an", "da", "ka", "li", "ro",  "sa",
                              "te", "pe", "mi", "ha", "vi", "le", "no", "bea", "cla"};
  static const Words last = {"ria", "nas", "len", "na",   "vid", "rin", "sa", "bert", "ra",
                             "lis", "ter", "ka",  "nnah", "tor", "on",  "mi", "trice"};
  return of_split(split,
                  [&] { return capitalised(cat(choose(first, random), choose(last, random))); });
}

std::string random_model(Random& random) {
  switch (random.below(5)) {
    case 0:
      return cat(letters(random, 2), "-", digits(random, 3));
    case 1:
      return cat(letters(random, 2), digits(random, 3));
    case 2:
      return cat(letters(random, 1), digits(random, 2), letters(random, 1));
    case 3:
      return cat(letters(random, 1), "-", digits(random, 2));
    default:
      return cat(letters(random, 3), digits(random, 2));
  }
}

std::string random_order(Random& random) {
  switch (random.below(4)) {
    case 0:
      return cat("#", digits(random, 5));
    case 1:
      return cat("HD", digits(random, 5));
    case 2:
      return cat(digits(random, 3), "-", digits(random, 3));
    default:
      return cat("HD-", digits(random, 4));
  }
}

std::string random_date(Random& random) {
  static const Words months = {"January",   "February", "March",    "April",
                               "May",       "June",     "July",     "August",
                               "September", "October",  "November", "December"};
  static const Words days = {"Monday", "Tuesday",  "Wednesday", "Thursday",
                             "Friday", "Saturday", "Sunday"};
  switch (random.below(5)) {
    case 0:
      return cat(1 + random.below(28), " ", choose(months, random));
    case 1:
      return cat(choose(months, random), " ", 1 + random.below(28));
    case 2:
      return cat(1 + random.below(28), "/", 1 + random.below(12));
    default:
      return std::string(choose(days, random));
  }
}

std::string random_amount(Random& random) {
  const uint64_t whole = chance(random, 0.5) ? 9 + random.below(90) : 100 + random.below(900);
  const std::string number =
      chance(random, 0.4) ? cat(whole, ".", chance(random, 0.5) ? "99" : "50") : cat(whole);
  switch (random.below(4)) {
    case 0:
      return "$" + number;
    case 1:
      return "£" + number;
    case 2:
      return number + " euros";
    default:
      return number + " dollars";
  }
}

std::string random_email(Random& random, Split split) {
  static const Words hosts = {"mail", "post", "inbox", "letter", "home"};
  std::string name = random_first_name(random, split);
  name[0] = static_cast<char>(name[0] - 'A' + 'a');
  return cat(name, digits(random, 2), "@", choose(hosts, random),
             chance(random, 0.5) ? ".com" : ".net");
}

std::string random_code(Random& random) {
  static const Words words = {"SAVE",  "SPRING", "HOME", "COOL", "NEW",
                              "CLEAN", "HELLO",  "SUN",  "GIFT", "FLASH"};
  return cat(choose(words, random), digits(random, 2));
}

std::string random_error(Random& random) { return cat("EEFC"[random.below(4)], digits(random, 2)); }

std::string random_part(Random& random, char kind) {
  static const Words any = {"power cable", "user manual", "rubber foot", "control knob",
                            "[left|right] hinge"};
  static const std::vector<std::pair<char, Words>> parts = {
      {'w',
       {"drain hose", "door seal", "water tank", "pump", "filter", "detergent drawer",
        "inlet hose"}},
      {'c',
       {"door shelf", "vegetable drawer", "door seal", "thermostat", "glass shelf", "ice tray"}},
      {'h',
       {"baking tray", "heating element", "door handle", "wire rack", "glass plate", "timer knob"}},
      {'a', {"remote control", "dust filter", "carbon filter", "fan blade", "wall bracket"}},
      {'v', {"dust bag", "brush head", "battery", "charging dock", "crevice nozzle", "side brush"}},
      {'k', {"lid", "mixing bowl", "blade", "whisk", "measuring cup", "drive belt"}},
      {'p', {"charger", "spare head", "comb attachment", "travel case", "battery"}},
  };
  for (const auto& [letter, names] : parts)
    if (letter == kind && chance(random, 0.8)) return from_pattern(choose(names, random), random);
  return from_pattern(choose(any, random), random);
}

std::string random_payment_method(Random& random) {
  static const Words methods = {"credit card", "debit card",   "bank transfer", "gift card",
                                "paypal",      "direct debit", "instalments"};
  return std::string(choose(methods, random));
}

std::string random_shop(Random& random, Split split) {
  static const Words kinds = {"Electro", "Mega", "Home", "Super", "Techno"};
  return cat(choose(kinds, random), random_brand(random, split));
}

}  // namespace slmc::helpdesk
