#!/usr/bin/env bash
# From published weights and captioned pictures to a server, at any size: train, export, calibrate, build, verify, bench, serve.
#
# usage: path.sh WEIGHTS FORMAT=PLACE OUT
#   WEIGHTS       holds llm, clip, unet and vae, as docs/weights.md says; takes what is trained
#   FORMAT=PLACE  captioned pictures with boxes: coco=DIR or flickr30k=DIR
#   OUT           takes bundles, reports and pictures
# environment: LIKE (default paper), and what makes it short: STEPS of training, BATCH, REQUESTS of calibration, RUNS of the
# benchmark (defaults: each command's own). For another target, give another --target to the two builds (docs/targets.md).
set -euo pipefail
weights=$1 data=$2 out=$3
profile=$weights/profile.json bundle=$out/bundle
training=(--profile "$profile" --weights "$weights" --data "$data" ${STEPS:+--steps "$STEPS"} ${BATCH:+--batch-size "$BATCH"})

step() { printf '\n== %s\n' "$*"; }

step "a profile from the folders"
python tools/derive_profile.py --like "${LIKE:-paper}" --weights "$weights"

step "what training takes"
python -m mgcc_ref.train "${training[@]}" --step align --dry-run

step "training: [IMG] tokens, mapper and refiner, then the grounder"
python -m mgcc_ref.train "${training[@]}" --step align --run "$out/runs/align"
python -m mgcc_ref.train "${training[@]}" --step grounder --run "$out/runs/grounder"

step "export and build"
python export/build_engines.py --profile "$profile" --weights "$weights" --target cpu --precision fp32 --out "$bundle" \
  --report "$out/build.json"

step "calibration, and 8 bits from it"
python -m mgcc_calibration capture --bundle "$bundle" --out "$out/calibration" ${REQUESTS:+--requests "$REQUESTS"}
python export/build_engines.py --profile "$profile" --weights "$weights" --target cpu --precision int8 \
  --scan "$out/calibration" --out "$out/bundle-int8" --report "$out/build-int8.json"

for built in "$bundle" "$out/bundle-int8"; do
  step "verify, draw and bench $built"
  mgcc verify --bundle "$built" --out "$out/verify-$(basename "$built").json"
  mgcc generate --bundle "$built" --text "A zebra stands beside a lighthouse." --out "$out/$(basename "$built").png"
  mgcc bench --bundle "$built" --parts latency ${RUNS:+--runs "$RUNS"} --json > "$out/bench-$(basename "$built").json"
done

step "serve: one picture by HTTP"
python examples/published_scale/draw_once.py --bundle "$bundle" --out "$out/served.png"
step "done: $out"
