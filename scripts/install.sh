#!/usr/bin/env bash
# Create the virtual environment $1 and install the project there (editable, with the extras in $EXTRAS).
#
# Where there is no NVIDIA GPU, PyPI's default torch would pull gigabytes of CUDA libraries. A CPU build is taken
# instead from, in this order: whatever pip is already configured with (a mirror, a wheel folder), then PyTorch's
# own CPU index. A configured pip is never pointed elsewhere: sites with a mirror have one for a reason.
set -euo pipefail
venv=$1
torch_version=2.13.0

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
  || { echo "Python 3.10 or newer is needed, found $("$PYTHON" --version). Set PYTHON=/path/to/python3." >&2; exit 2; }
for tool in c++ make; do
  command -v "$tool" >/dev/null || { echo "'$tool' is missing: DeepSpeed compiles its ops with it. Install a C++ compiler and make." >&2; exit 2; }
done

[ -x "$venv/bin/python" ] || "$PYTHON" -m venv "$venv"
pip=("$venv/bin/python" -m pip --disable-pip-version-check)
"${pip[@]}" install -qq --upgrade "pip>=24" "setuptools>=75,<82" wheel

torch_from=()
if ! command -v nvidia-smi >/dev/null; then
  if [ -z "$("${pip[@]}" config get global.find-links 2>/dev/null || true)${PIP_FIND_LINKS:-}${PIP_INDEX_URL:-}" ]; then
    torch_from=(--index-url https://download.pytorch.org/whl/cpu)
  fi
fi
echo "installing torch $torch_version ..."
"${pip[@]}" install -qq "torch==$torch_version" "${torch_from[@]}"
echo "installing autoscale_ds[$EXTRAS] and what it needs (a minute or two) ..."
"${pip[@]}" install -qq --editable ".[$EXTRAS]"
"$venv/bin/python" -c 'import torch, deepspeed; print(f"torch {torch.__version__}, deepspeed {deepspeed.__version__} ready")'
