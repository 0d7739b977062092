#include "distill/finetune_stage.h"

namespace slmc {

void visit_options(Fields& f, FinetuneOptions& o) {
  f.visit({.name = "model",
           .help = "The model to train: a Hugging Face folder or a GGUF, whose weights may be "
                   "quantized if they stay frozen.",
           .required = true,
           .positional = true,
           .value_name = "MODEL"},
          o.student);
  visit_data(f, o);
  f.visit({.name = "full", .help = "Train the weights themselves, not an adapter beside them."},
          o.full);
  f.visit({.name = "lora",
           .help = "The low-rank adapter: r=8,alpha=16,dropout=0.1,targets=q_proj+v_proj,"
                   "rslora=false; targets=all, and what is not given has its default (alpha 2r, "
                   "dropout 0, all matrices of the blocks).",
           .value_name = "SETTINGS"},
          o.lora);
  f.visit(
      {.name = "adapter",
       .help =
           "In place of LoRA, bottleneck adapters: reduction=16,kind=pfeiffer,"
           "activation=relu,dropout=0. Their width is the model's divided by the reduction; kind "
           "pfeiffer stands behind each feed-forward network, houlsby (activation silu) "
           "behind attention too; activations relu, silu, gelu, gelu_tanh.",
       .value_name = "SETTINGS"},
      o.adapter);
  f.visit({.name = "prompt_tokens",
           .help = "In place of LoRA, tune N virtual tokens before every text (prompt tuning).",
           .min = 0,
           .max = 1e6,
           .value_name = "N"},
          o.prompt_tokens);
  f.visit({.name = "prompt_init",
           .help = "How they begin: vocabulary (tokens that are drawn), random, or text:... (the "
                   "tokens of a text, repeated or cut).",
           .value_name = "HOW"},
          o.prompt_init);
  f.visit({.name = "init_adapter",
           .help = "An adapter of any kind to go on with: PEFT's folder, a GGUF of llama.cpp's "
                   "layout, or a folder of the package adapters.",
           .value_name = "FOLDER|FILE"},
          o.init_adapter);
  f.visit({.name = "train_layers",
           .help = "last:N trains (or adapts) the upper N layers only. The frozen ones below keep "
                   "nothing for the backward pass, and where the text is read more than once they "
                   "run the first time only: what they give stays in a file beside the output.",
           .value_name = "last:N|all"},
          o.train_layers);
  f.visit({.name = "recompute_frozen",
           .help = "With --train-layers last:N: run the frozen layers every time and keep no such "
                   "file. The results are the same bits."},
          o.recompute_frozen);
  f.visit({.name = "merge",
           .help = "Write the model with the adapter in its weights, not the adapter alone."},
          o.merge);
  f.visit({.name = "dequantize",
           .help = "Accept a quantized MODEL where a model of floats is written (--merge)."},
          o.dequantize);
  visit_quantize(f, o);
  f.visit({.name = "teacher",
           .help = "Learn from this model, or from what slmc capture stored of it, as slmc distill "
                   "does: recovery of a pruned or quantized model.",
           .value_name = "MODEL|CACHE"},
          o.teacher);
  visit_loss(f, o);
  visit_training(f, o);
}

}  // namespace slmc
