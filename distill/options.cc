#include "compress/core/text.h"
#include "distill/loss.h"
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
  f.visit({.name = "loss",
           .help = cat("What is compared with the teacher, at every position: ", loss_list(),
                       ". Several are mixed by weights, forward_kl:0.7,mse_hidden:0.3; a weight "
                       "that changes over the steps is FROM..TO, or FROM..TO@PART of them."),
           .value_name = "LOSS[:WEIGHT],..."},
          o.loss);
  f.visit({.name = "ce_weight",
           .help = "Share of the text's own next token: (1 - w) * T^2 * loss + w * cross-entropy; "
                   "not used where LOSS names cross_entropy itself.",
           .min = 0,
           .max = 1},
          o.ce_weight);
  f.visit({.name = "temperature",
           .help = "T that divides both models' logits in the loss.",
           .min = 0.01,
           .max = 100},
          o.temperature);
  f.visit({.name = "eval_windows",
           .help = "Windows of a teacher cache to hold back and measure on.",
           .min = 0,
           .value_name = "N"},
          o.eval_windows);
  visit_quantize(f, o.quantize, o.qat);
  visit_training(f, o);
}

}  // namespace slmc
