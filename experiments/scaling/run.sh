#!/bin/sh
# PSNR against compute: trains three sizes of two networks for three lengths each and evaluates them. The same command goes on where it stopped.
#   sh experiments/scaling/run.sh OUT
# Photos and test set first: restora prepare data=free_photos testsets=cbsd68
set -eu
out=$1
[ -e "$out/alone" ] || restora train -m 'experiments=glob(scaling/*)' trainer.max_steps=60 "hydra.sweep.dir=$out/alone" # times a step: leave the machine alone
while read -r name steps; do
    restora train -m "experiments=scaling/$name" "trainer.max_steps=$steps,$((4 * steps)),$((16 * steps))" \
        "hydra.sweep.dir=$out/runs/$name" --yes
    for run in "$out/runs/$name"/*/; do
        scored=$out/scores/$name/$(basename "$run")
        [ -e "$scored/summary.json" ] || restora evaluate "checkpoint=$run" benchmark=cbsd68_sigma25 metrics=psnr "output=$scored"
    done
done <<END
drunet_small 1350
drunet_medium 430
nafnet_medium 215
nafnet_small 375
drunet_large 135
nafnet_large 165
END
