#!/bin/sh
# Trains the models of the audit tables and audits them; about four hours on one core of a laptop, two
# of them without the parts slow20 and rest.
#   sh configs/audit/tables/run.sh runs/audit-tables [part...]      (parts below; most by default)
#   MODEL=pocket-flow sh configs/audit/tables/run.sh runs/audit-tables-flow [part...]
# Stopped at any moment, the same command goes on. Then the tables:
#   python -m shortcut_lightning.audit.tables runs/audit-tables
#
# Three models learn three random halves of the same 240 pictures, with three seeds. Each is audited
# with the next one as its shadow, which is CLiD's protocol: a shadow on another split of the same
# collection. What was measured lies in features/, so a model asked as target and as shadow, and the
# base model, are asked once.
# Not a matrix of `bench`: its cells are trainings that know nothing of one another, and here a report
# stands on three models and on what other reports have measured.
set -eu
here=$(dirname "$0")
train=$here/../train.yaml
out=$1
model=${MODEL:-pocket}
steps=${STEPS:-1200} # 600 are enough for full10 and full20
shift
parts=${*:-full40 full20 slow20 full10 lora dreambooth timesteps controls flip queries rest}

sets() { # NUMBER: the split of that number
  [ -f "$out/sets/$1/split.json" ] || python -m shortcut_lightning.audit.collection \
    --output "$out/sets/$1" --n_members 120 --n_nonmembers 120 --shadow same --seed "$1"
}
fit() { # NAME NUMBER [OPTION...]: a model of the members of that split
  sets "$2"
  run=$1 split=$2
  shift 2
  [ -d "$out/$run/version_0/export/model" ] || {
    rm -rf "${out:?}/$run"
    python train.py fit --config "$train" --name "$run" --output_dir "$out" \
      --model.pretrained_model_name_or_path "$model" --trainer.max_steps "$steps" \
      --seed_everything "$split" --data.instance_data_dir "$out/sets/$split/members" "$@"
  }
}
audit() { # REPORT CONFIG TARGET SHADOW NUMBER NEXT [OPTION...]: models as --audit.target.KEY VALUE
  report=$out/reports/$1 config=$here/$2.yaml target=$3 shadow=$4 own=$out/sets/$5 other=$out/sets/$6
  shift 6
  [ -f "$report/report.json" ] || python train.py audit --config "$config" --output "$report" \
    --audit.features "$out/features" \
    --audit.base "{pretrained_model_name_or_path: $model}" \
    --audit.target "$target" --audit.shadow "$shadow" \
    --audit.members "$own/members" --audit.nonmembers "$own/nonmembers" \
    --audit.shadow_members "$other/members" --audit.shadow_nonmembers "$other/nonmembers" "$@"
}
at() { # NAME STEP: that checkpoint as a model
  echo "{pretrained_model_name_or_path: $model, checkpoint: $out/$1/version_0/checkpoints/step=$2.ckpt}"
}
adapters() { # NUMBER: learnt from the members of that split
  fit "lora-$1" "$1" --model.method lora --model.rank 16 --model.learning_rate 2e-3 \
    --trainer.max_steps 600
}
lora() { # REPORTS CONFIG: three seeds of adapters
  reports=$1 scores=$2
  for number in 0 1 2; do
    next=$(((number + 1) % 3))
    adapters "$number"
    adapters "$next"
    audit "$reports-$number" "$scores" "{pretrained_model_name_or_path: $out/lora-$number}" \
      "{pretrained_model_name_or_path: $out/lora-$next}" "$number" "$next"
  done
}
quality() { # REPORT NAME STEP NUMBER: pictures of that checkpoint, by captions that it did not learn
  [ -f "$out/quality/$1/version_0/report.json" ] || {
    rm -rf "${out:?}/quality/$1"
    captions=$(python -c "
import json, sys
lines = [json.loads(line)['text'] for line in open(sys.argv[1], encoding='utf-8')]
print(json.dumps(lines[:60]))" "$out/sets/$4/nonmembers/metadata.jsonl")
    python train.py test --config "$train" --config "$here/quality.yaml" --name "$1" \
      --output_dir "$out/quality" --model.pretrained_model_name_or_path "$model" \
      --ckpt_path "$out/$2/version_0/checkpoints/step=$3.ckpt" \
      --data.instance_data_dir "$out/sets/$4/members" \
      --data.reference_data_dir "$out/sets/$4/nonmembers" --data.evaluation.prompts "$captions"
  }
}
seeds() { # KIND STEP REPORTS CONFIG [OPTION...]: three seeds at that checkpoint, trained so
  kind=$1 step=$2 reports=$3 scores=$4
  shift 4
  for number in 0 1 2; do
    next=$(((number + 1) % 3))
    fit "$kind-$number" "$number" "$@"
    fit "$kind-$next" "$next" "$@"
    audit "$reports-$number" "$scores" "$(at "$kind-$number" "$step")" \
      "$(at "$kind-$next" "$step")" "$number" "$next"
  done
}
full() { # STEP REPORTS CONFIG: of the models that learn as train.yaml says
  seeds full "$@"
}

for part in $parts; do
  case $part in
    full10) full 300 full10 few ;;
    full20) full 600 full20 few ;;
    full40) full 1200 full40 scores ;;
    controls) # captions that lie, and the collection as a whole
      fit full-0 0
      fit full-1 1
      for step in 600 1200; do
        audit "controls$((step / 30))-0" few "$(at full-0 $step)" "$(at full-1 $step)" 0 1 \
          --audit.controls.captions true --audit.dataset true --audit.ladder true
      done
      ;;
    lora) lora lora few ;;
    flip) # augmentation: half of the examples mirrored
      for number in 0 1; do
        fit "flip-$number" "$number" --data.training.random_flip true --data.cache_latents false
      done
      for step in 600 1200; do
        audit "flip$((step / 30))-0" few "$(at flip-0 $step)" "$(at flip-1 $step)" 0 1
        audit "flip$((step / 30))-1" few "$(at flip-1 $step)" "$(at flip-0 $step)" 1 0
      done
      ;;
    u-shaped) # levels drawn away from the middle of the path, where members are told; flows alone
      seeds u-shaped 600 u-shaped20 few --model.weighting_scheme u_shaped --trainer.max_steps 600
      for number in 0 1 2; do
        quality "u-shaped20-$number" "u-shaped-$number" 600 "$number"
        fit "full-$number" "$number"
        quality "full20-$number" "full-$number" 600 "$number"
      done
      ;;
    path) # the curve over the path from picture to noise, and the scores that read it
      full 600 path20 path
      full 1200 path40 path
      ;;
    queries) # 45 queries, and the other reducers
      fit full-0 0
      fit full-1 1
      audit queries20-0 queries "$(at full-0 600)" "$(at full-1 600)" 0 1
      ;;
    timesteps)
      fit full-0 0
      fit full-1 1
      audit timesteps20-0 timesteps "$(at full-0 600)" "$(at full-1 600)" 0 1
      audit timesteps20-1 timesteps "$(at full-1 600)" "$(at full-0 600)" 1 0
      ;;
    slow10) full 300 slow10 scores ;; # every score where less was learnt
    slow20) full 600 slow20 scores ;;
    slow-lora) lora slow-lora scores ;;
    rest)
      full 1200 rest40 rest
      full 600 rest20 rest
      ;;
    dreambooth) sh "$here/dreambooth.sh" "$out" ;;
    *)
      echo "no part '$part'; parts: full40 full20 slow20 full10 slow10 lora slow-lora dreambooth " \
        "timesteps controls flip path u-shaped queries rest" >&2
      exit 2
      ;;
  esac
done
