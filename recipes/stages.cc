#include "recipes/stages.h"

#include "compress/runtime/eval_stage.h"
#include "distill/capture_stage.h"
#include "distill/finetune_stage.h"
#include "distill/stage.h"
#include "formats/convert_stage.h"
#include "formats/tokenizer/train_stage.h"
#include "prune/stage.h"
#include "quantize/imatrix_stage.h"
#include "quantize/rotate_stage.h"
#include "quantize/stage.h"

namespace slmc {

const StageTable& recipe_stages() {
  static const StageTable table = [] {
    StageTable stages;
    stages.add("capture", [] { return make_capture_stage(); });
    stages.add("convert", make_convert_stage);
    stages.add("distill", [] { return make_distill_stage(); });
    stages.add("finetune", [] { return make_finetune_stage(); });
    stages.add("eval", make_eval_stage);
    stages.add("prune", [] { return std::make_unique<PruneStage>(); });
    stages.add("imatrix", [] { return std::make_unique<ImatrixStage>(); });
    stages.add("quantize", [] { return std::make_unique<QuantizeStage>(); });
    stages.add("rotate", [] { return std::make_unique<RotateStage>(); });
    stages.add("train-tokenizer", [] { return make_train_tokenizer_stage(); });
    return stages;
  }();
  return table;
}

}  // namespace slmc
