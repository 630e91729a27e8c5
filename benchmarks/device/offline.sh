#!/usr/bin/env bash
# The device check on a machine without a network.
#
#   bash benchmarks/device/offline.sh pack FOLDER [PYTHON]       # here; PYTHON: of the other machine's version (python3.12)
#   bash FOLDER/tree/benchmarks/device/offline.sh run [OPTIONS]  # there; OPTIONS of `python benchmarks/device`
#
# FOLDER (20 MB) has the committed tree, and wheels of the packages that are not expected on a machine with PyTorch. The
# other machine needs Linux on x86_64 with torch, torchvision, transformers and scikit-learn. `run` installs the wheels to
# SITE (/tmp/mmf_flava_site) for PYTHON (python3) and leaves the machine's packages as they are.
set -euo pipefail

wheels=(timm omegaconf hydra-core lmdb bitarray simplejpeg)
sdists=(iopath==0.1.10 fairscale==0.4.13 antlr4-python3-runtime==4.9.3 fairseq==0.12.2)

pack() {
  local folder=${1:?pack needs the name of a folder} python=${2:-python3.12} root version platforms=() name
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
  rm -rf "$folder"
  mkdir -p "$folder/tree" "$folder/wheels"
  folder=$(cd "$folder" && pwd)
  git -C "$root" archive HEAD mmf_flava projects benchmarks mmf_flava.pth | tar x -C "$folder/tree"
  git -C "$root" rev-parse --short=12 HEAD >"$folder/tree/COMMIT"
  "$python" -m venv "$folder/venv"
  python=$folder/venv/bin/python
  "$python" -m pip install -q wheel
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  for name in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014 manylinux1; do
    platforms+=(--platform "${name}_x86_64")
  done
  cd "$folder/wheels"
  for name in "${wheels[@]}"; do # in the versions that the tests use
    name=$(grep -i "^$name==" "$root/constraints.txt" || echo "$name")
    "$python" -m pip download -q --no-deps --only-binary=:all: --python-version "$version" --implementation cp \
      "${platforms[@]}" --platform any "$name"
  done
  MAX_JOBS=2 "$python" -m pip wheel -q --no-deps "${sdists[@]}"
  # as in the Makefile: the cp38 wheel has the YAML files, and is pure Python
  "$python" -m pip download -q --no-deps --only-binary=:all: --python-version 3.8 --implementation cp --abi cp38 \
    --platform manylinux1_x86_64 mmf==1.0.0rc10
  "$python" -m wheel tags --remove --python-tag py3 --abi-tag none --platform-tag any mmf-*.whl
  rm -rf "$folder/venv"
  du -sh "$folder"
}

run() {
  local root site=${SITE:-/tmp/mmf_flava_site} python=${PYTHON:-python3}
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
  if [ ! -f "$site/complete" ]; then
    "$python" -m pip install -q --no-index --no-deps --upgrade --target "$site" "$root"/../wheels/*.whl
    cp "$root/mmf_flava.pth" "$site/"
    # Python reads .pth files in site folders only, and a folder on PYTHONPATH is none
    echo 'import os, site; site.addsitedir(os.path.dirname(os.path.abspath(__file__)))' >"$site/sitecustomize.py"
    touch "$site/complete"
  fi
  export PYTHONPATH=$site:$root${PYTHONPATH:+:$PYTHONPATH} PATH=$site/bin:$PATH PYTHONDONTWRITEBYTECODE=1
  exec "$python" "$root/benchmarks/device" "$@"
}

case ${1:-} in
  pack | run) "$@" ;;
  *) sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit 2 ;;
esac
