#!/bin/sh
# Trains the models of the zoo one after the other, ships and measures each. From a checkout:
#   sh experiments/zoo/train_all.sh [NAME ...]
# Photos and test sets first: restora prepare data=free_photos testsets=cbsd68,bsd68,classic5,live1,set5,set14,kodak24
# A run that was broken off goes on; one that is finished is left as it is. ZOO_RUNS is where the runs lie.
set -eu
runs=${ZOO_RUNS:-outputs/zoo}
for name in ${*:-denoise denoise_gray half_minute photo jpeg deblur inpaint old_photo sr_x2 sr_x4 sr_photo_x2 sr_photo_x4}; do
    run=$runs/$name
    if ! grep -q '"status": "finished"' "$run/run.json" 2>/dev/null; then
        if [ -e "$run/checkpoints/last.ckpt" ]; then
            restora train resume="$run"
        else
            restora train experiments="zoo/$name" hydra.run.dir="$run"
        fi
    fi
    restora zoo ship "$run" "$name"
    restora zoo verify "$name" --write
done
restora zoo
