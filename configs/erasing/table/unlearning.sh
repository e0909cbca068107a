#!/bin/sh
# Cleaning a model that has learned a concept already, without its pictures' clean versions: a negative
# prompt, SLD, ESD, UCE and FMN, which need a word for it, and the words for places alone (model removal).
# About ten minutes of one core a concept and run. After the sets of configs/bench/erasing.yaml:
#   sh configs/erasing/table/unlearning.sh runs/unlearning [qr|watermark|text...]
#   python -m shortcut_lightning.results.erasing --runs runs/unlearning --keep ROWS
# Stopped at any moment, the same command goes on. RUNS='0 1 2' in the environment says which runs
# (trainings with other seeds and other starting noise); OPTIONS='--trainer.max_steps 1 ...' is added
# to every command.
# Not a matrix of `bench`: every arm begins with the model that the arm "contaminated" leaves, and some
# only test it; a cell trains by itself.
set -eu
here=$(dirname "$0")
erasing=$here/..
out=$1
shift

row() { # VERB CONCEPT ARM [OPTION...]: a run of `fit`, evaluated at its end, or of `test`
  verb=$1 concept=$2 arm=$3
  shift 3
  [ -f "$out/$run/$concept/$arm/version_0/report.json" ] || {
    rm -rf "${out:?}/$run/$concept/$arm"
    python train.py "$verb" --config "$here/cell.yaml" --config "$here/$concept.yaml" \
      --seed_everything "$run" --data.evaluation.seed "${run}000" \
      --data.instance_data_dir "sets/$concept/train" --output_dir "$out/$run/$concept" --name "$arm" \
      "$@" ${OPTIONS:-}
  }
}

for run in ${RUNS:-0 1 2}; do for concept in ${*:-qr watermark text}; do
  case $concept in
    qr) word="QR code" ;;
    *) word=$concept ;;
  esac
  row fit "$concept" contaminated --trainer.callbacks+=Export
  model=$out/$run/$concept/contaminated/version_0/export/model
  row test "$concept" "negative prompt" --model.pretrained_model_name_or_path "$model" \
    --data.evaluation.negative_prompt "$word"
  for setting in medium max; do
    row test "$concept" "SLD $setting" --model.pretrained_model_name_or_path "$model" \
      --data.evaluation.negative_prompt "$word" --data.erasing "$erasing/sld_$setting.yaml" \
      --data.erasing.negative none
  done
  row test "$concept" UCE --model.pretrained_model_name_or_path "$model" \
    --model UnifiedConceptEditing --model.concepts "[$word]"
  for parts in cross_attention others; do
    row fit "$concept" "ESD $parts" --model.pretrained_model_name_or_path "$model" \
      --model ErasedStableDiffusion --model.concept "$word" --model.parts "$parts" \
      --model.learning_rate 1e-4 --model.ddim_steps 12 --trainer.max_steps 60
  done
  row fit "$concept" FMN --model.pretrained_model_name_or_path "$model" \
    --model ForgetMeNot --model.concept "$word" --model.learning_rate 1e-4 --trainer.max_steps 35
  row fit "$concept" "words for places" --model.pretrained_model_name_or_path "$model" \
    --model GeometryErasure --model.removal model --model.token_lr 5e-3 \
    --data.erasing "$erasing/full.yaml" --data.erasing.alpha 1
done; done
