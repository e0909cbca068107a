#!/bin/sh
# What does a DreamBooth reveal about the photographs behind it, when they were protected, purified,
# or learned with contrastive decoupling? Called by run.sh: dreambooth.sh OUT
# Twenty-four photographs of one person are learned, 80 others of the same person are not; the shadow
# learns another person from photographs as they are. The audit shows all models the photographs as
# they are, with the caption that DreamBooth gives them. Not a matrix of `bench`, as run.sh says.
set -eu
here=$(dirname "$0")
configs=$here/../..
out=$1

person() { # NUMBER
  [ -d "$out/persons/$1/reference" ] || python -c "
from pathlib import Path
from shortcut_lightning.pocket import world
world.write_subject($1, Path('$out/persons/$1'), instances=24, references=80)"
}
arm() { # NAME NUMBER [OPTION...]: a model of that person's photographs
  name=$1 number=$2
  shift 2
  person "$number"
  [ -d "$out/dreambooth/$name/version_0/export/model" ] || {
    rm -rf "${out:?}/dreambooth/$name"
    python train.py fit --config "$here/dreambooth.yaml" --name "$name" \
      --output_dir "$out/dreambooth" --data.instance_data_dir "$out/persons/$number/instance" "$@"
  }
}
audit() { # REPORT NAME CAPTION
  [ -f "$out/reports/$1/report.json" ] || python train.py audit --config "$here/few.yaml" \
    --output "$out/reports/$1" --audit.features "$out/features" --audit.caption "$3" \
    --audit.target "{pretrained_model_name_or_path: $out/dreambooth/$2}" \
    --audit.shadow "{pretrained_model_name_or_path: $out/dreambooth/shadow}" \
    --audit.members "$out/persons/500/instance" --audit.nonmembers "$out/persons/500/reference" \
    --audit.shadow_members "$out/persons/501/instance" \
    --audit.shadow_nonmembers "$out/persons/501/reference"
}

attack="--data.attack $configs/attacks/photoguard_encoder.yaml --data.attack.epsilon 16
  --data.attack.steps 100"
purify="--data.purifiers $configs/purifiers/code_sr_pocket.yaml"
decouple="--data.decoupling $configs/decoupling/training_only.yaml"
own="a photo of sks person"

both() { # NAME [OPTION...]: the model and its audit
  arm "$1" 500 $2
  audit "dreambooth $1" "$1" "$own"
}

arm shadow 501
both clean ""
both protected "$attack"
both protected+decoupling "$attack $decouple"
both protected+purified "$attack $purify"
both clean+decoupling "$decouple"
both protected+purified+decoupling "$attack $purify $decouple"
audit "dreambooth protected+decoupling, its own words" protected+decoupling "$own, bhj noisy pattern"
