#!/bin/sh
# The commands that made examples/helpdesk/teacher: data, tokenizer, training from random weights, test accuracy.
# Run in the repository's root after `make`; about ten minutes on two idle cores. Results go to FOLDER (default build/teacher).
set -eu
folder=${1:-build/teacher}
bin=${BUILD:-build}
here=examples/helpdesk

"$bin/helpdesk-generate" "$folder/data" --train 60000 --test 400 --seed 1

"$bin/slmc" train-tokenizer --data "$folder/data/train.jsonl" --vocab 2048 --pattern llama-bpe \
  --special-token '<|begin_of_text|>' --special-token '<|im_end|>' --special-token '<|im_start|>' -o "$folder/tokenizer"
cp "$here/teacher/tokenizer_config.json" "$here/teacher/generation_config.json" "$folder/tokenizer/"

# Conversations end with <|im_end|>, the tokenizer's end of text, so none is appended.
"$bin/slmc" distill --student "$here/teacher/config.json" --tokenizer "$folder/tokenizer" --data "$folder/data/train.jsonl" \
  --tokens 2400000 --batch 8 --context 256 --lr 2.5e-3 --warmup 60 --min-lr-ratio 0.05 --no-eos --seed 1 -o "$folder/model"

"$bin/slmc" eval "$folder/model" --text "$folder/data/test.jsonl" --tasks "$folder/data/test_tasks.jsonl"
