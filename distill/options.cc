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
  f.visit(
      {.name = "data",
       .help = "Training text: .txt (one document) or .jsonl (one a line). A teacher cache brings "
               "its own.",
       .value_name = "FILE"},
      o.data);
  f.visit({.name = "output",
           .help = "Folder for the student, in Hugging Face's layout.",
           .required = true,
           .short_flag = "o",
           .value_name = "OUT"},
          o.output);
  f.visit({.name = "loss",
           .help = cat("What is compared with the teacher, at every position: ", loss_list(), "."),
           .value_name = "LOSS"},
          o.loss);
  f.visit({.name = "ce_weight",
           .help = "Share of the text's own next token: (1 - w) * T^2 * loss + w * cross-entropy.",
           .min = 0,
           .max = 1},
          o.ce_weight);
  f.visit({.name = "temperature",
           .help = "T that divides both models' logits in the loss.",
           .min = 0.01,
           .max = 100},
          o.temperature);
  f.visit({.name = "steps",
           .help = "Optimizer steps; or give tokens or epochs.",
           .min = 0,
           .value_name = "N"},
          o.steps);
  f.visit({.name = "tokens",
           .help = "Tokens to train on, rounded up to whole steps.",
           .min = 0,
           .value_name = "N"},
          o.tokens);
  f.visit({.name = "epochs",
           .help = "Passes over the data (1 if nothing else is given).",
           .min = 0,
           .value_name = "X"},
          o.epochs);
  f.visit({.name = "batch", .help = "Windows in a batch.", .min = 1, .value_name = "N"}, o.batch);
  f.visit({.name = "accumulation",
           .help = "Batches whose gradients make one step.",
           .min = 1,
           .value_name = "N"},
          o.accumulation);
  f.visit({.name = "context", .help = "Tokens in a window.", .min = 2, .value_name = "N"},
          o.context);
  f.visit({.name = "micro_batch",
           .help = "Windows in one forward pass, which bounds memory; 0: about 1024 tokens.",
           .min = 0,
           .value_name = "N"},
          o.micro_batch);
  f.visit({.name = "lanes",
           .help = "Gradient buffers, each filled by one thread at a time; results depend on it "
                   "and not on --threads. 0: chosen from the "
                   "batch and the student's size.",
           .min = 0,
           .max = 256,
           .value_name = "N"},
          o.lanes);
  f.visit({.name = "lr", .help = "Highest learning rate.", .min = 0}, o.lr);
  f.visit({.name = "min_lr_ratio",
           .help = "Last learning rate as a part of the highest.",
           .min = 0,
           .max = 1},
          o.min_lr_ratio);
  f.visit({.name = "schedule",
           .help = "How the learning rate falls after the warm-up.",
           .choices = {"cosine", "linear", "constant"}},
          o.schedule);
  f.visit({.name = "warmup",
           .help = "Steps over which the learning rate rises.",
           .min = 0,
           .value_name = "N"},
          o.warmup);
  f.visit({.name = "weight_decay",
           .help = "AdamW's decay of matrices; norms and biases have none.",
           .min = 0},
          o.weight_decay);
  f.visit(
      {.name = "beta1", .help = "AdamW's decay of the gradient's mean.", .min = 0, .max = 0.9999},
      o.beta1);
  f.visit({.name = "beta2",
           .help = "AdamW's decay of the gradient's square.",
           .min = 0,
           .max = 0.99999},
          o.beta2);
  f.visit({.name = "clip", .help = "Bound of the gradient's L2 norm; 0: none.", .min = 0}, o.clip);
  f.visit({.name = "checkpoint_every",
           .help = "Steps between checkpoints; 0: only when interrupted.",
           .min = 0,
           .value_name = "N"},
          o.checkpoint_every);
  f.visit(
      {.name = "eval_text", .help = "Held-out text whose loss is measured.", .value_name = "FILE"},
      o.eval_text);
  f.visit({.name = "eval_every",
           .help = "Steps between measurements on --eval-text; 0: only at the end.",
           .min = 0,
           .value_name = "N"},
          o.eval_every);
  f.visit({.name = "eval_tokens",
           .help = "Tokens of --eval-text to measure on; 0: all.",
           .min = 0,
           .value_name = "N"},
          o.eval_tokens);
  f.visit({.name = "eval_windows",
           .help = "Windows of a teacher cache to hold back and measure on.",
           .min = 0,
           .value_name = "N"},
          o.eval_windows);
  f.visit({.name = "keep_sparsity", .help = "Weights that are zero at the start stay zero."},
          o.keep_sparsity);
  f.visit({.name = "isolate_documents",
           .help = "Positions see only their own document, not those packed before it."},
          o.isolate_documents);
  f.visit({.name = "eos", .help = "End each document with the tokenizer's end-of-text token."},
          o.eos);
  f.visit({.name = "save_dtype",
           .help = "Type of the written weights.",
           .choices = {"f32", "f16", "bf16"}},
          o.save_dtype);
}

}  // namespace slmc
