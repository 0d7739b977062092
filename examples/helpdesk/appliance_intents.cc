// Requests about the appliances themselves.
#include "examples/helpdesk/phrases.h"

namespace slmc::helpdesk {

std::vector<Intent> appliance_intents() {
  return {
      {"report_defect",
       {"my {product} {problem}", "the {product} I [bought|got] [on {date}|] {problem}", "my {brand} {product} {problem}", "our {product} {problem}, what can I do?",
        "it {problem}, my {brand} {model}", "[I have|there is] a problem with my {product}, it {problem}", "the {product} shows error {error}",
        "my {product} is [broken|faulty], it {problem}"},
       {"something is wrong with our {product}: it {problem}", "this {brand} {product} {problem}, please advise", "what does {error} on my {product} mean? it {problem}"},
       {"look at my broken toaster", "help with a fault", "fix the other problem"},
       {"brand_model", "bought", "error", "problem", "order", "brand"},
       {"Sorry that the {product} gives you trouble, let us find the cause.", "I have noted the fault of your {product}.", "Let us try a few steps together."}},
      {"repair_booking",
       {"[please|can you|could you] send [a technician|someone|a repairman] to {city}[ on {date}|]", "I [want|need] [to book a repair|a repair appointment] [for my {product}|]",
        "my {product} {problem}, when can a technician come?", "can someone repair my {product} [on {date}|]?", "book me a repair [on {date}|for {date}], the {product} {problem}",
        "I need an engineer for [the|my] {product} in {city}"},
       {"is a technician free {date} to mend my {product}?", "have my {product} repaired at home in {city} please", "arrange a visit of your repair people, the {product} {problem}"},
       {"book a repair", "send a technician", "make a repair appointment"},
       {"city", "wish_date", "brand_model", "problem", "product"},
       {"A technician can come to {city}.", "Your repair is booked for {date}.", "I am booking a repair for you."}},
      {"warranty_question",
       {"is my {product} still under [warranty|guarantee]?", "how long is the [warranty|guarantee] [of|on] the {brand} {model}?", "does the [warranty|guarantee] cover a {product} that {problem}?",
        "I bought [the|my] {product} {date}, do I [still|] have warranty?", "do I lose my warranty if I open the {product}?", "what does the guarantee [of|for] {order} cover?"},
       {"who pays now that the {product} {problem}, is there a guarantee?", "has the warranty of my {brand} {model} run out?", "until when does the guarantee on the {product} last?"},
       {"check my warranty", "tell me if the guarantee is still valid", "explain the warranty"},
       {"brand_model", "bought", "order", "problem"},
       {"Your {product} has two years of warranty.", "I am checking the warranty of the {model}.", "The warranty is two years from purchase."}},
      {"spare_part",
       {"I need a [new|spare|replacement] {part} for my {product}", "do you [sell|have] [the|a] {part} for [a|the] {brand} {model}?", "where can I [buy|get|order] a {part} for my {product}?",
        "how much is a [new|replacement] {part}[ for the {model}|]?", "the {part} of my {product} [broke|is worn out], can I [buy|order] a new one?"},
       {"looking for a {part} that fits the {brand} {model}", "can I purchase just the {part} of the {product}?", "what would a spare {part} cost me?"},
       {"order a spare part", "sell me a new filter", "find a replacement part"},
       {"brand_model", "brand", "email", "product"},
       {"We have the {part} in stock.", "I am looking for a {part} for the {model}.", "Let me find that spare part."}},
      {"missing_part",
       {"the {part} [is|was] missing[ from the box| in my parcel|]", "my {product} came without [the|a] {part}", "there was no {part} in the box[ of {order}|]",
        "the {part} [was not|wasn't] [included|in the package]", "order {order} is not complete, the {part} is missing", "you forgot to pack the {part}[ for my {product}|]"},
       {"I unpacked the {product} and couldn't find any {part}", "where's the {part}? the box with my {product} had none", "{order} arrived incomplete, without {part}"},
       {"send me the missing part", "send what was missing from the box", "complete my order"},
       {"order", "brand_model", "bought", "product"},
       {"Sorry, we will send the {part} today.", "The missing part of order {order} is on its way.", "I am sending you what was missing."}},
      {"damaged_on_arrival",
       {"[my|the] {product} arrived [broken|damaged], it {problem}", "the {product} [was|came] damaged [in transport|when it arrived]", "I just unpacked the {product} and it {problem}",
        "the box of {order} was [crushed|wet|torn] and the {product} is damaged", "your driver dropped my {product}, now it {problem}", "{order} came today [smashed|with dents|in pieces]"},
       {"straight out of the box the {product} {problem}", "the parcel {order} was damaged on the way, the {product} is dented", "the delivery men broke my {product}"},
       {"look at the damaged parcel", "replace the item that came damaged", "note the transport damage"},
       {"order", "brand_model", "problem", "city"},
       {"I am sorry that the {product} arrived damaged, we replace it.", "I have noted the damage for order {order}.", "We will replace the damaged item."}},
      {"wrong_item",
       {"you sent [me|] the wrong {product}", "I ordered a {product} but got a {other_product}", "[this|that] is not the {product} I ordered[, {order}|]",
        "I received a {other_brand} instead of a {brand}", "wrong item in {order}, I ordered a {product}", "I got the {other_model}, but I ordered the {model}"},
       {"the parcel {order} has somebody else's {other_product} in it, mine should be a {product}", "instead of the {brand} {product} there was a {other_product} in the box",
        "there's been a mix-up, my order was a {product}"},
       {"swap the wrong item", "pick up the wrong item", "send the right item"},
       {"order", "brand_model", "bought"},
       {"Sorry for the mix-up, the right {product} will be sent.", "I will correct order {order}.", "We will send the right item."}},
      {"exchange_item",
       {"can I [swap|exchange] [my|the] {product} for [a|another] {brand}?", "I [want|would like] to exchange the {product}[ from {order}|]", "I don't want my money back, I want another {product}",
        "please [replace|exchange] the {product}, it {problem}", "can I get [a different colour|a bigger one|a smaller one] [instead of this {product}|]?", "I'd like to swap [it|the {product}] for the {model}"},
       {"would you trade my {product} for the {brand} one?", "the {product} is too small, can I get a larger one in its place?", "give me a {model} in exchange for this {product}"},
       {"exchange my item", "swap it for another colour", "replace it with another model"},
       {"order", "bought", "problem", "brand_model"},
       {"We can exchange the {product} for you.", "I have started the exchange for order {order}.", "I am preparing the exchange."}},
      {"installation",
       {"can you [install|connect|set up] [my|the|our] {product}[ on {date}|]?", "do you offer installation [of a {product}|in {city}]?", "how much is the installation of a {product}?",
        "I need [somebody|a fitter] to [connect|install] [my|the] [new|] {product}[ in {city}|]", "please book installation for {order}", "is installation [included|free] with the {brand} {model}?"},
       {"who will hook up our {product} in {city}?", "will your men also fit the {product} when they bring it {date}?", "I can't connect the {product} myself, can you do the installation?"},
       {"install the appliance", "connect the machine", "book the installation"},
       {"city", "wish_date", "order", "brand_model"},
       {"We can install the {product} for you.", "A fitter can come to {city}.", "I am booking the installation."}},
      {"usage_help",
       {"how do I [clean|use|descale|reset|set up] [my|the] {product}?", "how [does|do I set] the timer [work on|of] my {product}?", "what does the [red|blinking|small] light on [my|the] {brand} {product} mean?",
        "which [programme|setting] [should I use|is best] [on|for] the {product}?", "where do I find the manual [of|for] [a|the] {brand} {model}?", "can I [put the {part} in the dishwasher|wash the {part}]?"},
       {"could you explain how the {brand} {product} is used?", "I don't understand the settings of the {model}", "what is the right way to clean the {part} of my {product}?"},
       {"explain how to clean it", "tell me how to set the timer", "send me the manual"},
       {"brand_model", "brand", "product"},
       {"The manual of the {model} explains it step by step.", "Here is how to use your {product}.", "I am glad to explain that."}},
      {"stock_check",
       {"do you have [the|a] {brand} {product} in stock?", "is the {model} available [in|at] [your shop in|] {city}?", "when will the {brand} {model} be [available|back in stock|back]?",
        "[have|do] you [got|sell] {brand} {product}s[ in {city}|]?", "is the {product} for {amount} still available?", "how many {model} do you have left[ in {city}|]?"},
       {"are there any {brand} {product}s left in {city}?", "can I pick up a {model} at your store in {city} today?", "is the {brand} {model} sold out?"},
       {"check if it is in stock", "tell me what is available", "reserve one for me"},
       {"city", "brand_model", "amount"},
       {"The {model} is in stock.", "I am checking the stock in {city}.", "Let me see what we have in stock."}},
      {"complaint",
       {"I want to [complain|make a complaint] about [your|the] [service|staff|driver][ in {city}|]", "your [driver|technician|colleague] was [rude|very rude|late][ on {date}|]",
        "I have been [waiting on the phone|on hold] for [an hour|40 minutes], this is [a joke|unacceptable]", "nobody [answers|calls back], [worst|terrible] service",
        "the way I was treated in your shop in {city} is a disgrace", "I am [very|really] unhappy with your service[, order {order}|]"},
       {"who do I talk to about the awful manners of your man in {city}?", "I was treated badly on {date} and want that noted", "never had such poor service, I want to speak to the manager"},
       {"pass on my complaint", "let me speak to a manager", "note my complaint"},
       {"city", "order", "visit_date"},
       {"I am sorry for that, I will pass it on.", "Your complaint about {city} is noted.", "I apologise, a manager will call you."}},
  };
}

const std::vector<Intent>& intents() {
  static const std::vector<Intent> all = [] {
    std::vector<Intent> both = order_intents();
    for (Intent& intent : appliance_intents()) both.push_back(std::move(intent));
    return both;
  }();
  return all;
}

const std::vector<Ambiguous>& ambiguous_requests() {
  static const std::vector<Ambiguous> all = {
      {"the {product} from order {order} is broken", "report_defect", "damaged_on_arrival", 0.6},
      {"the {product} I got is not what I expected", "return_item", "wrong_item", 0.65},
      {"what about my money for {order}?", "refund_status", "payment_problem", 0.7},
      {"I need the {part} for my {product}", "spare_part", "missing_part", 0.7},
      {"can someone come for the {product} on {date}?", "repair_booking", "installation", 0.65},
      {"I want another {product}, this one {problem}", "exchange_item", "return_item", 0.7},
      {"nothing has happened with {order} since {date}", "order_status", "complaint", 0.65},
      {"{order} has to come another way, to {city} on {date}", "change_address", "reschedule_delivery", 0.6},
      {"{order} says {amount}, but I have a code", "discount_code", "price_match", 0.65},
      {"my {product} {problem} after two weeks, is that normal?", "report_defect", "warranty_question", 0.65},
  };
  return all;
}

}  // namespace slmc::helpdesk
