#!/bin/sh
# How to reach this scenario's hosts ($MODELYARD_LAB) that are up right now.
exec "$(dirname "$0")/../../lab/lab" inventory "$@"
