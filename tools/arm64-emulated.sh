#!/usr/bin/env bash
# tools/arm64-emulated.sh FOLDER: a 64-bit Arm Python with ONNX Runtime in FOLDER, run by qemu, and its device profile.
# Needs Debian's qemu-user-static (apt-get install qemu-user-static) and pip; about 60 MB are downloaded.
# It proves that files and runner work on Arm; an emulator's speed says nothing of a board's.
set -euo pipefail
[ $# = 1 ] || { sed -n 2,4p "$0"; exit 2; }
command -v qemu-aarch64-static >/dev/null || { echo "type: apt-get install qemu-user-static"; exit 2; }
mkdir -p "$1"/{state/lists/partial,cache/archives/partial,debs,wheels,system,site}
cd "$1"
here=$PWD
touch status
# apt with an architecture and a state of its own: this system's packages are left alone.
arm=(-o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User=root
    -o Dir::State="$here/state" -o Dir::Cache="$here/cache" -o Dir::State::status="$here/status")
apt-get "${arm[@]}" update -qq
(cd debs && apt-get "${arm[@]}" download -qq python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libc6 libgcc-s1 \
    libstdc++6 zlib1g libexpat1 libffi8 libssl3 libbz2-1.0 liblzma5 libuuid1 libcrypt1)
for package in debs/*.deb; do dpkg -x "$package" system; done
# Later ones read this machine's /sys for an Arm CPU while they load, and crash.
"${PYTHON:-python3}" -m pip download -q --no-deps -d wheels --python-version 3.11 --only-binary=:all: \
    --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 \
    "numpy>=2,<3" onnxruntime==1.20.1 flatbuffers packaging protobuf coloredlogs humanfriendly sympy mpmath
for wheel in wheels/*.whl; do "${PYTHON:-python3}" -m zipfile -e "$wheel" site; done
cat > arm64-emulated.yaml <<PROFILE
name: arm64-emulated
cycles: 20
python: env PYTHONPATH=$here/site PYTHONHOME=$here/system/usr qemu-aarch64-static -L $here/system $here/system/usr/bin/python3.11
PROFILE
echo "todm bench BUNDLE --device $here/arm64-emulated.yaml --paced 5 --soak 100"
