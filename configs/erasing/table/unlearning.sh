#!/bin/sh
# Cleaning a model that has learned a concept already, without its pictures' clean versions: a negative
# prompt, ESD and UCE, which need a word for it, and the words for places alone (model removal). About
# ten minutes of one core a concept. After the sets of configs/bench/erasing.yaml:
#   sh configs/erasing/table/unlearning.sh runs/unlearning [qr|watermark|text...]
#   python tests/benchmarks/erasing_table.py --runs runs/unlearning
# Stopped at any moment, the same command goes on. OPTIONS='--trainer.max_steps 1 ...' in the environment
# is added to every command.
set -eu
here=$(dirname "$0")
erasing=$here/..
out=$1
shift

learn() { # CONCEPT ARM [OPTION...]: a run of `fit`, evaluated at its end
  concept=$1 arm=$2
  shift 2
  [ -f "$out/$concept/$arm/version_0/report.json" ] || {
    rm -rf "${out:?}/$concept/$arm"
    python train.py fit --config "$here/cell.yaml" --config "$here/$concept.yaml" \
      --data.instance_data_dir "sets/$concept/train" --output_dir "$out/$concept" --name "$arm" "$@" ${OPTIONS:-}
  }
}
ask() { # CONCEPT ARM [OPTION...]: a run of `test` of the model that has learned the concept
  concept=$1 arm=$2
  shift 2
  [ -f "$out/$concept/$arm/version_0/report.json" ] || {
    rm -rf "${out:?}/$concept/$arm"
    python train.py test --config "$here/cell.yaml" --config "$here/$concept.yaml" \
      --data.instance_data_dir "sets/$concept/train" --output_dir "$out/$concept" --name "$arm" "$@" ${OPTIONS:-}
  }
}

for concept in ${*:-qr watermark text}; do
  case $concept in
    qr) word="QR code" ;;
    *) word=$concept ;;
  esac
  learn "$concept" contaminated --trainer.callbacks+=Export
  model=$out/$concept/contaminated/version_0/export/model
  ask "$concept" "negative prompt" --model.pretrained_model_name_or_path "$model" \
    --data.negative_prompt "$word"
  ask "$concept" UCE --model.pretrained_model_name_or_path "$model" \
    --model UnifiedConceptEditing --model.concepts "[$word]"
  for parts in cross_attention others; do
    learn "$concept" "ESD $parts" --model.pretrained_model_name_or_path "$model" \
      --model ErasedStableDiffusion --model.concept "$word" --model.parts "$parts" \
      --model.learning_rate 1e-4 --model.ddim_steps 12 --trainer.max_steps 60
  done
  learn "$concept" "words for places" --model.pretrained_model_name_or_path "$model" \
    --model GeometryErasure --model.removal model --model.token_lr 5e-3 \
    --data.erasing "$erasing/full.yaml" --data.erasing.alpha 1
done
