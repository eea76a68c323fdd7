#!/bin/sh
# usage: scripts/cuda.sh [COMPUTE CAPABILITY...]
# Build llama.cpp for CUDA as a whole on a lab host and look at what comes out of it. The lab has no card, so nothing is
# computed on one. Takes 20 minutes on two idle cores for one capability (default 8.9); seconds once the build is kept.
set -eu
cd "$(dirname "$0")/.."
export MODELYARD_LAB=cuda MODELYARD_CUDA="${*:-8.9}"
export MOLECULE_SCENARIO_DIRECTORY="$PWD/molecule/llama_cpp" PYTHONPATH="$PWD/molecule/_shared"
export ANSIBLE_CONFIG="$PWD/ansible.cfg"
export ANSIBLE_INVENTORY="$PWD/molecule/llama_cpp/inventory,$PWD/molecule/_shared/running.sh"
trap 'lab/lab down' EXIT
lab/tiny_gguf.py
lab/lab up llama-cpp
ansible-playbook molecule/llama_cpp/prepare.yml
pytest -p modelyard_scenario --hosts=ansible://all -q -x molecule/llama_cpp/cuda
