#!/bin/sh
# Rebuilds every weight of the pocket family from nothing, in order, then measures the card.
# On one GPU: sh configs/pocket/rebuild.sh --trainer.accelerator=gpu --trainer.devices=1 \
#             --trainer.strategy=auto
set -e
export MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=8589934592 OMP_WAIT_POLICY=PASSIVE
for step in autoencoder text_encoder text_to_image identity attributes clip restoration; do
    python train.py fit --config "configs/pocket/$step.yaml" "$@"
    if [ "$step" = text_to_image ]; then
        python train.py fit --config "configs/pocket/$step.yaml" "$@" --model.focus=0.6 \
            --ckpt_path runs/pocket/text_to_image/checkpoints/last.ckpt --trainer.max_steps=5900
    fi
done
python train.py test --config configs/pocket/card.yaml
