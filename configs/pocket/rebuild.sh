#!/bin/sh
# Rebuilds every weight of the pocket family from nothing, in order, then measures the card.
#   sh configs/pocket/rebuild.sh                  into the package (several core-hours)
#                                                 (one recipe alone leaves it in runs/pocket/weights)
#   sh configs/pocket/rebuild.sh FOLDER OPTIONS   elsewhere; the options go to every training
# On one GPU: sh configs/pocket/rebuild.sh FOLDER --trainer.accelerator=gpu --trainer.devices=1 \
#             --trainer.strategy=auto
# Not a matrix of `bench`: each training stands on the weights that those before it leave in the folder.
# CARD_OPTIONS in the environment go to the measuring of the card.
set -e
export MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=8589934592 OMP_WAIT_POLICY=PASSIVE
out=${1:-shortcut_lightning/pocket/weights}
[ $# -eq 0 ] || shift

for step in autoencoder decoder text_encoder text_to_image faces identity attributes clip restoration
do
    case $step in
        decoder) from="--model.polish=$out/vae" ;;
        text_to_image)
            from="--model.text_encoder=$out/text_encoder --data.autoencoder=$out/vae" ;;
        faces)
            from="--model.text_encoder=$out/text_encoder --data.autoencoder=$out/vae
                  --model.unet=$out/unet" ;;
        identity | attributes) from="--model.autoencoder=$out/vae" ;;
        *) from= ;;
    esac
    # shellcheck disable=SC2086
    python train.py fit --config "configs/pocket/$step.yaml" --model.output="$out" $from "$@"
done
# shellcheck disable=SC2086
python train.py test --config configs/pocket/card.yaml --model.weights="$out" \
    --model.output="$out/card.json" $CARD_OPTIONS
