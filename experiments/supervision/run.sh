#!/bin/sh
# What a clean photo is worth: trains, scores and compares everything that README.md shows. The same command goes on where it stopped.
#   sh experiments/supervision/run.sh BSDS500 PHOTOS OUT
# BSDS500 holds train/, val/ and test/; links to its photos are made in PHOTOS; BSD68 is where `restora prepare testsets=bsd68` puts it.
set -eu
bsds=$(cd "$1" && pwd) photos=$2 out=$3
seeds=seed=1,2,3
noise2void=objective.noise2void.percent=2 # of 48x48 pixels in batches of 16: about as many a step as the authors'

arrange() { # all 400 photos, and halves of them that do not match; BSD68 is in val/, so 6 others of it validate
    mkdir -p "$photos/photos/train" "$photos/photos/val" "$photos/half" "$photos/halves/val"
    mkdir -p "$photos/halves/train/clean" "$photos/halves/train/degraded"
    half=degraded
    for photo in "$bsds"/train/*.jpg "$bsds"/test/*.jpg; do
        ln -sf "$photo" "$photos/photos/train/"
        ln -sf "$photo" "$photos/halves/train/$half/"
        if [ $half = clean ]; then half=degraded; else half=clean; fi
    done
    for name in 156065 361010 37073 376043 38082 38092; do ln -sf "$bsds/val/$name.jpg" "$photos/photos/val/"; done
    ln -sfn "$(cd "$photos" && pwd)/photos/val" "$photos/halves/val/degraded"
    ln -sfn "$(cd "$photos" && pwd)/photos/val" "$photos/half/val"
    ln -sfn "$(cd "$photos" && pwd)/halves/train/degraded" "$photos/half/train"
}

train() { # FOLDER EXPERIMENT PHOTOS KEY=VALUE …
    folder=$1 experiment=$2 root=$3
    shift 3
    restora train -m "experiments=supervision/$experiment" "data.source.root=$photos/$root" "$@" \
        "hydra.sweep.dir=$out/$folder" --yes
}

score() { # NOISE FOLDER KEY=VALUE …: the runs of a folder, by what they learnt
    noise=$1 folder=$2
    shift 2
    for run in "$out/$folder"/*/; do
        objective=$(sed -n 's/.*"objective=\([a-z0-9]*\)".*/\1/p' "$run/run.json" | head -n 1)
        scored=$out/scores/$noise/${objective:-$folder}/$(basename "$run")
        if grep -q '"objective.noise2void.percent=2"' "$run/run.json"; then
            scored=$out/scores/$noise/noise2void_2/$(basename "$run")
        fi
        [ -e "$scored/summary.json" ] || restora evaluate "checkpoint=$run" "$@" images=true "output=$scored"
    done
}

fit() { # NOISE NAME KEY=VALUE …: what has no run of its own
    scored=$out/scores/$1/$2
    shift 2
    [ -e "$scored/summary.json" ] || restora evaluate "$@" images=true "output=$scored"
}

compare() { # FOLDER NOISE NAME …
    folder=$out/$1 noise=$2
    shift 2
    list=
    for name in "$@"; do list=$list,$out/scores/$noise/$name; done
    restora evaluate "compare=${list#,}" "output=$folder"
}

arrange
gaussian=benchmark=bsd68_sigma25
train gaussian gaussian photos $seeds objective=supervised,noise2noise,neighbor2neighbor,recorrupted,sure,noise2void
train gaussian gaussian photos $seeds objective=noise2void $noise2void
train unpaired unpaired halves $seeds
train paired_gan paired_gan half $seeds
train prior prior photos $seeds
score gaussian gaussian $gaussian
score gaussian unpaired $gaussian
score gaussian paired_gan $gaussian
learnt="supervised noise2noise recorrupted sure neighbor2neighbor noise2void_2 noise2void paired_gan unpaired"
compare gaussian gaussian $learnt

few=benchmark.limit=6 # photos: what is fitted to each photo, and BM3D, take their time
fit gaussian bm3d classical=bm3d processes=1 $gaussian $few
for seed in 1 2 3; do
    fit gaussian zs_n2n/$seed method=zs_n2n max_time=60s seed=$seed $gaussian $few
    fit gaussian prior/$seed method=pnp_hqs "method.denoiser=$(echo "$out"/prior/$((seed - 1))_*)" $gaussian $few
done
compare gaussian_6 gaussian $learnt bm3d zs_n2n prior

poisson="benchmark=degraded benchmark/testset=bsd68 benchmark.color=gray degradation@benchmark.degradation=poisson_noise"
poisson="$poisson benchmark.degradation.photons=30"
train poisson poisson photos $seeds objective=supervised,noise2noise,neighbor2neighbor
train poisson poisson photos $seeds objective=noise2void $noise2void
score poisson poisson $poisson
fit poisson bm3d classical=bm3d processes=1 $poisson $few
for seed in 1 2 3; do fit poisson zs_n2n/$seed method=zs_n2n max_time=60s seed=$seed $poisson $few; done
compare poisson poisson supervised noise2noise neighbor2neighbor noise2void_2
compare poisson_6 poisson supervised noise2noise neighbor2neighbor noise2void_2 bm3d zs_n2n
