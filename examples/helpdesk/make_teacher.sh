#!/bin/sh
# The commands that made examples/helpdesk/teacher: data, tokenizer, training from random weights in three parts, test figures.
# Run in the repository's root after `make`; about half an hour on two idle cores. Results go to FOLDER (default build/teacher).
set -eu
folder=${1:-build/teacher}
slmc=${BUILD:-build}/slmc
here=examples/helpdesk
# Conversations end with <|im_end|>, the tokenizer's end of text, so none is appended.
train="--batch 8 --context 256 --no-eos"

"${BUILD:-build}/helpdesk-generate" "$folder/data" --train 60000 --test 400 --drills 20000 --seed 1

"$slmc" train-tokenizer --data "$folder/data/train.jsonl" --vocab 2048 --pattern llama-bpe \
  --special-token '<|begin_of_text|>' --special-token '<|im_end|>' --special-token '<|im_start|>' -o "$folder/tokenizer"
cp "$here/teacher/tokenizer_config.json" "$here/teacher/generation_config.json" "$folder/tokenizer/"

# 1. The language: whole conversations. 2. Copying: drills, and answers alone. 3. Both.
"$slmc" distill --student "$here/teacher/config.json" --tokenizer "$folder/tokenizer" --data "$folder/data/train.jsonl" \
  --tokens 2400000 $train --lr 2.5e-3 --warmup 60 --min-lr-ratio 0.05 --seed 1 -o "$folder/part1"
"$slmc" distill --student "$folder/part1" --data "$folder/data/drills.jsonl" \
  --tokens 1500000 $train --lr 2e-3 --warmup 20 --schedule constant --isolate-documents --seed 2 -o "$folder/part2"
"$slmc" distill --student "$folder/part2" --data "$folder/data/train.jsonl" "$folder/data/drills.jsonl" \
  --tokens 4500000 $train --lr 2e-3 --warmup 20 --min-lr-ratio 0.03 --seed 3 -o "$folder/model"

"$slmc" eval "$folder/model" --text "$folder/data/test.jsonl" --tasks "$folder/data/test_tasks.jsonl"
