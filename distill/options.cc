#include "distill/stage.h"

namespace slmc {

void visit_options(Fields& f, DistillOptions& o) {
  f.visit({.name = "teacher",
           .help = "The model to learn from, or what slmc capture stored of it; without one the "
                   "student learns the text alone.",
           .value_name = "MODEL|CACHE"},
          o.teacher);
  f.visit(
      {.name = "student",
       .help =
           "layers:N (N evenly spaced layers of the teacher, first and last kept), layers:0,1,3 "
           "(these of its layers), a model to go on with, or a config.json to start from "
           "random weights.",
       .required = true,
       .value_name = "layers:N|MODEL"},
      o.student);
  f.visit(
      {.name = "tokenizer",
       .help = "Tokenizer of a student that starts from a config.json, when there is no teacher.",
       .value_name = "FOLDER"},
      o.tokenizer);
  visit_data(f, o);
  visit_loss(f, o);
  visit_on_policy(f, o.on_policy);
  f.visit({.name = "eval_windows",
           .help = "Windows of a teacher cache to hold back and measure on.",
           .min = 0,
           .value_name = "N"},
          o.eval_windows);
  visit_quantize(f, o);
  visit_training(f, o);
}

}  // namespace slmc
