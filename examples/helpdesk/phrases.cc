// What customers say around a request: greetings, digressions, further values, side requests.
#include "examples/helpdesk/phrases.h"

namespace slmc::helpdesk {

const std::vector<Detail>& detail_sentences() {
  static const std::vector<Detail> all = {
      {"order", {"[my|the] order [number|no.] is {order}", "order {order}", "this is about {order}", "it's order {order}", "{order} is the number"},
       {"you find it under {order}", "reference {order}"}},
      {"product", {"it's a {product}", "it is about [a|my|the] {product}", "the {product}, I mean"}, {"we are talking about a {product}"}},
      {"bought", {"I bought it [on|] {date}", "ordered {date}", "purchased on {date}", "I have had it since {date}"}, {"I got it from you {date}", "date of purchase: {date}"}},
      {"wish_date", {"{date} would be [good|best|fine]", "I am home {date}", "{date} if possible", "[please|] not before {date}"}, {"preferably {date}", "I could do {date}"}},
      {"visit_date", {"that was {date}", "it happened {date}", "I was there {date}"}, {"this was on {date}"}},
      {"brand", {"it's a {brand}", "the brand is {brand}", "made by {brand}"}, {"{brand} is what it says on it"}},
      {"brand_model", {"it's [a|the] {brand} {model}", "the model is {model}", "[model|type] {model}", "{brand}, model {model}"}, {"the label reads {brand} {model}", "{model} is printed on the back"}},
      {"error", {"the display [says|shows] {error}", "error {error}", "[it|the screen] keeps showing {error}"}, {"there is an {error} on the screen"}},
      {"problem", {"it {problem}", "[now|since yesterday] it {problem}", "the thing {problem}"}, {"the trouble is that it {problem}"}},
      {"city", {"I live in {city}", "I'm in {city}", "we are in {city}", "address is in {city}"}, {"my home is in {city}", "based in {city}"}},
      {"amount", {"I paid {amount}", "it [was|cost] {amount}", "the price was {amount}"}, {"it set me back {amount}"}},
      {"email", {"my email is {email}", "you can reach me at {email}", "{email}"}, {"write to {email}"}},
      {"method", {"I paid [by|with] {method}", "paid by {method}"}, {"the payment was by {method}"}},
  };
  return all;
}

const Around& around() {
  static const Around all = {
      .openers = {"hi", "hello", "hello there", "good morning", "good [afternoon|evening]", "dear [team|support|sir or madam]", "hey", "hi, I'm {first_name}", "hello, {first_name} here",
                  "hi [guys|all]", "[sorry to bother you|excuse me]", "me again", "quick question", "OK so", "hope you can help"},
      .openers_in_test = {"greetings", "hello support people", "good day", "hiya, {first_name} speaking", "a question from me"},
      .closers = {"thanks", "thank you", "thanks in advance", "many thanks, {first_name}", "[best|kind] regards, {first_name}", "please [help|advise]", "cheers", "hope to hear from you soon",
                  "thank you for your [help|time]", "let me know", "can you help?", "{first_name}"},
      .closers_in_test = {"much appreciated", "all the best, {first_name}", "waiting for your answer", "thanks a million"},
      .digressions = {"my neighbour has a {other_brand} and is [happy|very pleased] with it", "my old {other_product} lasted [ten|twenty] years", "I already [wrote|called] {other_date}",
                      "the other order, {other_order}, came [on time|without problems]", "my [sister|son|mother] in {other_city} recommended you", "{shop} would have [helped|answered] by now",
                      "we have [guests|a party] at the weekend", "I am not [good with|used to] these things", "I [looked|searched] on your website but found nothing",
                      "I usually love your shop", "with [two|three] small kids this is no fun", "the {other_product} I bought with it is fine", "it's not the {other_product}, that one works",
                      "at {shop} it was {other_amount}", "my husband says I should just wait", "the weather doesn't help either", "I read the manual twice", "it was a present [for|from] my [mother|wife|brother]"},
      .digressions_in_test = {"our {other_product} from {other_brand} never had such trouble", "back in {other_city} this was easier", "I phoned you {other_date} and was told to write",
                              "the {other_order} order is settled, by the way", "my daughter thinks I am too old for this", "for {other_amount} I could have had a {other_brand}"},
      .later = {"I also want you to {also} later, but first:", "at some point please {also}, now the important thing:", "before you {also}, something more urgent:",
                "I know you still have to {also}, but now:"},
      .later_in_test = {"some other day you may {also}, today it is this:", "that you should {also} can wait, first of all:"},
      .added = {"also, please {also}", "and could you {also} too?", "by the way, can you {also}?", "[then|after that] {also}, please", "oh, and {also}"},
      .added_in_test = {"when that is done, {also}", "on top of that I'd like you to {also}"},
      .refused = {"[please|] do not {also}", "no need to {also}", "I am not asking you to {also}", "I don't want you to {also}"},
      .refused_in_test = {"you don't have to {also}", "I never said to {also}"},
      .urgent = {"it's urgent", "[this is|it's] [very|really] urgent", "please hurry", "I need this [today|right now|as soon as possible]", "asap please", "we can't wait any longer",
                 "[my baby needs it|the medicine is in there], so be quick"},
      .urgent_in_test = {"please be as quick as you can, it's urgent", "there is no time to lose", "this can't wait"},
      .questions = {"Hello, how can I help you?", "Could you tell me a bit more?", "I am here to help, which order or product is it?", "Can you give me the details?"},
  };
  return all;
}

}  // namespace slmc::helpdesk
